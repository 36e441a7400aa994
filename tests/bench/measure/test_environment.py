"""The conditions of a measurement, and the name of the machine."""

import json
import os
import re
import sys
from collections import namedtuple
from types import SimpleNamespace

import cpuinfo
import psutil
import pytest
import torch

from bench import ROOT
from bench.measure import environment
from bench.record.load import busy_others
from bench.session import tampering

CPU = torch.device("cpu")


def named(monkeypatch, kind, name, *, hip=None):
    monkeypatch.setattr(environment, "device_name", lambda _: name)
    monkeypatch.setattr(environment, "cores", lambda: 2)
    monkeypatch.setattr(environment, "processor", lambda: "6 85 7")
    monkeypatch.setattr(torch.version, "hip", hip)
    return environment.machine(torch.device(kind))


def test_linux_and_py_cpuinfo_name_the_same_processor():
    info = cpuinfo.get_cpu_info()
    assert environment.cpu_name() == info.get("brand_raw", environment.cpu_name())
    assert environment.processor() == " ".join(str(info[n]) for n in ("family", "model", "stepping") if n in info)


@pytest.mark.parametrize(
    ("kind", "name", "slug"),
    [
        ("cpu", "AMD EPYC 7B13", "cpu-amd-epyc-7b13-2c"),
        ("cpu", "AMD EPYC 7B13 64-Core Processor", "cpu-amd-epyc-7b13-2c"),
        ("cpu", "Intel(R) Xeon(R) CPU @ 2.20GHz", "cpu-intel-xeon-f6m85-2c"),
        ("cpu", "Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", "cpu-intel-core-i7-9750h-2c"),
        ("cuda", "NVIDIA H200", "cuda-nvidia-h200"),
        ("cuda", "NVIDIA GeForce RTX 4090", "cuda-nvidia-geforce-rtx-4090"),
        ("mps", "Apple M3 Max", "mps-apple-m3-max"),
    ],
)
def test_machines_are_named_by_device_and_model(monkeypatch, kind, name, slug):
    assert named(monkeypatch, kind, name) == slug


@pytest.mark.parametrize(
    ("processor", "slug"),
    [
        ("23 1 2", "cpu-amd-zen1-2c"),
        ("23 49 0", "cpu-amd-zen2-2c"),
        ("25 1 1", "cpu-amd-zen3-2c"),
        ("25 17 1", "cpu-amd-zen4-2c"),
        ("26 2 1", "cpu-amd-zen5-2c"),
        ("99 1 1", "cpu-amd-epyc-f99m1-2c"),
        ("", "cpu-amd-epyc-2c"),
    ],
)
def test_a_brand_of_many_processors_gets_the_microarchitecture(processor, slug):
    assert environment.machine_name("cpu", "AMD EPYC", processor, 2) == slug


def test_an_amd_gpu_is_rocm_although_torch_says_cuda(monkeypatch):
    assert named(monkeypatch, "cuda", "AMD Instinct MI300X", hip="7.0") == "rocm-amd-instinct-mi300x"


@pytest.mark.parametrize("name", ["", "../../etc", "Zürich/Ω №1", " --x-- ", "a\nb|c", "CON: *?", "(R) (TM)"])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_any_name_makes_a_slug_that_is_safe_as_a_folder(monkeypatch, kind, name):
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", named(monkeypatch, kind, name))


def test_this_machine_has_a_slug():
    assert re.fullmatch(r"cpu(-[a-z0-9]+)+-\d+c", environment.machine(CPU))


def test_conditions_are_complete_and_can_be_written_down():
    conditions = environment.conditions(CPU)
    assert set(conditions) >= {
        "machine",
        "device",
        "device_name",
        "cpu",
        "cores",
        "threads",
        "memory_gib",
        "system",
        "cpu_capability",
        "governor",
        "allocator",
        "float32_precision",
        "versions",
        "commit",
        "dirty",
    }
    assert json.loads(json.dumps(conditions, allow_nan=False)) == conditions
    assert conditions["device"] == "cpu"
    assert conditions["device_name"]
    assert conditions["cores"] >= 1
    assert conditions["threads"] == torch.get_num_threads()
    assert conditions["memory_gib"] > 0


def test_conditions_name_no_folder_of_this_machine():
    text = json.dumps([environment.conditions(CPU), environment.state(CPU)])
    assert str(ROOT) not in text
    assert not re.search(r"(^|[\s\"'(])(~|[A-Za-z]:\\|/\w)", text)


def test_versions_of_all_that_can_change_a_time():
    versions = environment.versions()
    assert {"python", "torch", "triton", "torchvision", "numpy", "pytest-benchmark"} <= set(versions)
    assert versions["torch"] == torch.__version__
    assert all(isinstance(version, str) and version for version in versions.values())


def test_commit_and_whether_the_tree_was_changed():
    commit = environment.commit()
    assert set(commit) == {"id", "dirty"}
    assert commit["id"] == "unknown" or re.fullmatch(r"[0-9a-f]{12}", commit["id"])


def test_a_tree_without_git_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment.commit.__wrapped__() == {"id": "unknown", "dirty": None}
    monkeypatch.setenv("PATH", "")
    assert environment.commit.__wrapped__() == {"id": "unknown", "dirty": None}


def test_state_is_load_and_clock():
    state = environment.state(CPU)
    names = {"load_1min", "cpu_mhz", "memory_available_gib", "throttled", "others_seconds", "clock_seconds"}
    assert set(state) == names
    assert json.dumps(state)


COUNTERS = ("gpu_mhz", "gpu_memory_mhz", "gpu_celsius", "gpu_throttle_reasons", "gpu_energy_mj")


class NVMLError(Exception):
    """Whatever the library raises."""


def pynvml(missing=(), known="GPU-0-1"):
    """NVIDIA's library on a machine with one GPU, some of whose counters are missing."""

    def handle(uuid):
        if uuid != known:
            raise NVMLError("Not Found")
        return "instance" if uuid.startswith("MIG") else "whole"

    def counter(*names, value):
        def read(handle, pass_name=0):
            assert handle == "whole"
            if names[pass_name] in missing:
                raise NVMLError("Not Supported")
            return value[pass_name]

        return read

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=0,
        NVML_CLOCK_MEM=1,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=handle,
        nvmlDeviceGetDeviceHandleFromMigDeviceHandle={"instance": "whole"}.__getitem__,
        nvmlDeviceGetClockInfo=counter("gpu_mhz", "gpu_memory_mhz", value=(1000, 2000)),
        nvmlDeviceGetTemperature=counter("gpu_celsius", value=(40,)),
        nvmlDeviceGetCurrentClocksThrottleReasons=counter("gpu_throttle_reasons", value=(4,)),
        nvmlDeviceGetTotalEnergyConsumption=counter("gpu_energy_mj", value=(12345,)),
    )


def gpu_state(monkeypatch, library):
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="0-1"))
    return environment._gpu_state(torch.device("cuda", 0))


WHOLE = dict(zip(COUNTERS, (1000, 2000, 40, 4, 12345), strict=True))


@pytest.mark.parametrize("missing", [(), *[(name,) for name in COUNTERS], COUNTERS], ids=str)
def test_a_counter_that_the_gpu_lacks_costs_only_itself(monkeypatch, missing):
    state = gpu_state(monkeypatch, pynvml(missing))
    note = state.pop("gpu_state", None)
    assert state == {**WHOLE, **dict.fromkeys(missing)}
    assert note == (f"unknown: {', '.join(f'{name} (NVMLError)' for name in missing)}" if missing else None)


def test_a_part_of_a_gpu_has_the_counters_of_the_whole(monkeypatch):
    assert gpu_state(monkeypatch, pynvml(known="MIG-0-1")) == WHOLE


def test_a_gpu_that_the_library_does_not_know_is_said(monkeypatch):
    assert gpu_state(monkeypatch, pynvml(known="GPU-2")) == {"gpu_state": "unknown: NVMLError"}


def test_on_a_gpu_torchs_allocator_there_is_a_condition(monkeypatch):
    host = environment.conditions(CPU)["allocator"]
    monkeypatch.setattr(environment, "device_name", lambda _: "Some GPU")
    monkeypatch.setattr(torch.cuda, "get_allocator_backend", lambda: "native")
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    there = environment.conditions(torch.device("cuda"))["allocator"]
    assert there == f"{host}; on the GPU native, PYTORCH_ALLOC_CONF=expandable_segments:True"


def test_what_float32_is_calculated_in_is_a_condition():
    before = environment.conditions(CPU)["float32_precision"]
    assert set(before.values()) <= {"none", "ieee", "tf32", "bf16"}
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        after = environment.conditions(CPU)["float32_precision"]
    finally:
        assert tampering.undo() == "wrong: changes float32 precision"
    assert after == {**before, "cuda.matmul": "tf32"}
    assert environment.conditions(CPU)["float32_precision"] == before


@pytest.mark.skipif(sys.platform == "win32", reason="no times of children there")
def test_neither_idle_time_nor_that_of_its_own_children_is_others(monkeypatch):
    whole = {"user": 5.0, "system": 1.0, "steal": 0.5, "idle": 100.0, "iowait": 7.0, "guest": 2.0}
    own = SimpleNamespace(user=1.0, system=0.5, children_user=2.0, children_system=0.5)
    monkeypatch.setattr(psutil, "cpu_times", lambda: namedtuple("Times", whole)(**whole))
    monkeypatch.setattr(os, "times", lambda: own)
    assert environment.others_seconds() == 2.5


def test_a_watch_averages_what_others_use_without_what_belongs_to_us(monkeypatch):
    times, others, ours = iter([100.0, 102.0]), iter([10.0, 14.0]), iter([1.0, 2.0])
    monkeypatch.setattr(environment, "time", SimpleNamespace(perf_counter=times.__next__))
    monkeypatch.setattr(environment, "others_seconds", others.__next__)
    assert environment.OthersWatch(ours.__next__).processors() == 1.5


def test_a_watch_says_nothing_where_the_system_does_not(monkeypatch):
    monkeypatch.setattr(environment, "others_seconds", lambda: None)
    assert environment.OthersWatch().processors() is None


def test_two_states_say_how_many_processors_others_kept_busy():
    before = {"others_seconds": 10.0, "clock_seconds": 100.0}
    after = {"others_seconds": 13.0, "clock_seconds": 102.0}
    assert busy_others(before, after) == 1.5
    assert busy_others(before, {**after, "clock_seconds": 100.05}) is None  # too short to count
    assert busy_others({"load_1min": 0.1}, after) is None  # records of before it was counted

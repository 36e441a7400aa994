"""The conditions of a measurement, and the name of the machine."""

import json
import os
import re
import sys
from collections import namedtuple
from types import SimpleNamespace

import psutil
import pytest
import torch

from bench import ROOT
from bench.measure import environment
from bench.record.load import busy_others

CPU = torch.device("cpu")


def named(monkeypatch, kind, name, *, hip=None):
    monkeypatch.setattr(environment, "device_name", lambda _: name)
    monkeypatch.setattr(environment, "cores", lambda: 2)
    monkeypatch.setattr(torch.version, "hip", hip)
    return environment.machine(torch.device(kind))


@pytest.mark.parametrize(
    ("kind", "name", "slug"),
    [
        ("cpu", "AMD EPYC 7B13", "cpu-amd-epyc-7b13-2c"),
        ("cpu", "AMD EPYC 7B13 64-Core Processor", "cpu-amd-epyc-7b13-2c"),
        ("cpu", "Intel(R) Xeon(R) CPU @ 2.20GHz", "cpu-intel-xeon-2c"),
        ("cpu", "Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz", "cpu-intel-core-i7-9750h-2c"),
        ("cuda", "NVIDIA H200", "cuda-nvidia-h200"),
        ("cuda", "NVIDIA GeForce RTX 4090", "cuda-nvidia-geforce-rtx-4090"),
        ("mps", "Apple M3 Max", "mps-apple-m3-max"),
    ],
)
def test_machines_are_named_by_device_and_model(monkeypatch, kind, name, slug):
    assert named(monkeypatch, kind, name) == slug


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


@pytest.mark.skipif(sys.platform == "win32", reason="no times of children there")
def test_neither_idle_time_nor_that_of_its_own_children_is_others(monkeypatch):
    whole = {"user": 5.0, "system": 1.0, "steal": 0.5, "idle": 100.0, "iowait": 7.0, "guest": 2.0}
    own = SimpleNamespace(user=1.0, system=0.5, children_user=2.0, children_system=0.5)
    monkeypatch.setattr(psutil, "cpu_times", lambda: namedtuple("Times", whole)(**whole))
    monkeypatch.setattr(os, "times", lambda: own)
    assert environment.others_seconds() == 2.5


def test_two_states_say_how_many_processors_others_kept_busy():
    before = {"others_seconds": 10.0, "clock_seconds": 100.0}
    after = {"others_seconds": 13.0, "clock_seconds": 102.0}
    assert busy_others(before, after) == 1.5
    assert busy_others(before, {**after, "clock_seconds": 100.05}) is None  # too short to count
    assert busy_others({"load_1min": 0.1}, after) is None  # records of before it was counted

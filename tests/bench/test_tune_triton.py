"""The tuner: what it keeps, that its table is heeded, and what it says without a GPU."""

import contextlib
import itertools
import json
from types import SimpleNamespace

import pytest
import torch

from bench import tune_triton
from bench.stats.ratios import Ratio

pytest.importorskip("triton")
SHAPE = (256, 6, 24, 24)


@pytest.fixture
def plan(monkeypatch, tmp_path):
    from kernels.triton_fused import plan

    monkeypatch.setattr(plan, "TABLE", tmp_path / "tuned.json")

    def forget():
        plan._table.cache_clear()
        plan.divide.cache_clear()

    forget()
    yield plan
    forget()


def divided(plan, machine):
    return plan.divide(SHAPE, True, True, "sigmoid", True, False, torch.float32, machine, False)


def test_a_choice_in_the_table_is_heeded_on_its_device_and_for_its_shape_only(plan):
    gpu, other = plan.Machine(132, 32, "Some GPU"), plan.Machine(132, 32, "Another")
    assert (divided(plan, gpu).warps, divided(plan, gpu).programs) == (8, 36)
    key = plan.key(SHAPE, True, True, torch.float32)
    plan.TABLE.write_text(json.dumps({"Some GPU": {key: [4, 2]}}))
    plan._table.cache_clear()
    plan.divide.cache_clear()
    assert plan.choice(SHAPE, True, True, torch.float32, gpu) == plan.Choice(4, 2)
    assert plan.choice(SHAPE, True, False, torch.float32, gpu) == plan.Choice()
    assert divided(plan, gpu).warps == 4
    assert divided(plan, other).warps == 8


def test_a_block_with_a_residual_has_a_choice_of_its_own(plan):
    gpu = plan.Machine(132, 32, "Some GPU")

    def warps(residual):
        form = (SHAPE, True, False, "relu", True, False, torch.float32, gpu, False)
        return plan.divide(*form, residual).warps

    plan.TABLE.write_text(json.dumps({"Some GPU": {"256x6x24x24 planes residual float32": [4, 2]}}))
    assert (warps(True), warps(False)) == (4, 8)


def test_a_choice_is_kept_only_if_all_of_the_interval_is_a_gain():
    sure, unsure, slower = Ratio(0.9, 0.88, 0.93), Ratio(0.85, 0.7, 1.01), Ratio(1.2, 1.1, 1.3)
    assert tune_triton.better({(4, 2): sure, (4, 4): slower}) == (4, 2)
    assert tune_triton.better({(4, 2): sure, (4, 4): unsure}) == (4, 2)
    assert tune_triton.better({(4, 4): unsure}) is None
    assert tune_triton.better({(4, 4): slower}) is None
    assert tune_triton.better({}) is None


@pytest.mark.parametrize("device", ["cuda", "cpu", "gpu"])
def test_without_a_gpu_one_line_says_so(device, capsys):
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is one")
    assert tune_triton.main(["--device", device]) == tune_triton.UNAVAILABLE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m bench.tune_triton: error: ")


# --- On a GPU that is not there ----------------------------------------------------------------------------------

GPU = "Some GPU"
CHOICES = [choice for choice in itertools.product((4, 8, 16), (2, 4, 8)) if choice != (8, 4)]
SHAPES = [(images, *SHAPE[1:]) for images in (256, 512, 1024)]


@pytest.fixture
def gpu(plan, monkeypatch):
    """Ratios are looked up by key and choice; what `fails` raises, and after what is `deadly` the device is lost."""
    machine = plan.Machine(132, 32, GPU)
    keys = [plan.key(shape, True, True, torch.float32) for shape in SHAPES]
    fake = SimpleNamespace(keys=keys, now=None, fails={}, ratios={}, deadly=(), lost=False, written=[])

    def operation(shape, key):
        return SimpleNamespace(shape=shape, pool=2, residual=False, key=key)

    def replay(*_):
        side = (fake.now, tuple(plan._table()[GPU][fake.now]))
        if side in fake.fails:
            fake.lost = side in fake.deadly
            raise fake.fails[side]
        return side

    def ratio_in_pairs(sides, _):
        value = fake.ratios.get(sides[0], 1.0)
        return Ratio(value, value, value)

    def synchronize(_):
        if fake.lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more")

    def write(table):
        really_write(table)
        fake.written.append(json.loads(plan.TABLE.read_text())[GPU].copy())

    really_write = tune_triton._write
    workload = SimpleNamespace(subject=lambda _: lambda _: lambda: None)
    monkeypatch.setattr(plan, "machine_of", lambda _: machine)
    monkeypatch.setattr(tune_triton.devices, "find", torch.device)
    monkeypatch.setattr(tune_triton, "operations", lambda **_: [*map(operation, SHAPES, keys)])
    monkeypatch.setattr(tune_triton, "problem_of", lambda operation, **_: setattr(fake, "now", operation.key))
    monkeypatch.setattr(tune_triton, "Operands", lambda _: None)
    monkeypatch.setattr(tune_triton, "Workload", lambda *_: workload)
    monkeypatch.setattr(tune_triton, "_write", write)
    monkeypatch.setattr(tune_triton.device_timing, "replay", replay)
    monkeypatch.setattr(tune_triton.device_timing, "ratio_in_pairs", ratio_in_pairs)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    return fake


def tuned(plan):
    return json.loads(plan.TABLE.read_text())


def test_the_table_is_written_after_each_shape(plan, gpu, capsys):
    gpu.ratios = {(gpu.keys[0], (4, 2)): 0.9, (gpu.keys[2], (16, 8)): 0.8}
    assert tune_triton.main([]) == 0
    first, last = {gpu.keys[0]: [4, 2]}, {gpu.keys[2]: [16, 8]}
    assert gpu.written == [first, first, {**first, **last}]
    assert [file.name for file in plan.TABLE.parent.iterdir()] == [plan.TABLE.name]
    assert "left out" not in capsys.readouterr().err


def test_a_choice_that_fails_is_left_out_and_named(plan, gpu, capsys):
    gpu.ratios = {(gpu.keys[0], (4, 2)): 0.9, (gpu.keys[0], (16, 8)): 0.8}
    gpu.fails = {(gpu.keys[0], (16, 8)): RuntimeError("out of resource: registers\nRequired: 70000")}
    assert tune_triton.main([]) == 0
    assert tuned(plan) == {GPU: {gpu.keys[0]: [4, 2]}}
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert line.startswith(f"{gpu.keys[0]}: 16 warps, 8 programs: left out: ")
    assert "out of resource: registers" in line


def test_a_shape_whose_choices_all_fail_keeps_the_default(plan, gpu):
    gpu.ratios = {(gpu.keys[1], (4, 2)): 0.9}
    gpu.fails = {(gpu.keys[0], choice): ValueError("does not compile") for choice in CHOICES}
    assert tune_triton.main([]) == 0
    assert tuned(plan) == {GPU: {gpu.keys[1]: [4, 2]}}


def test_a_lost_device_ends_the_tuning_with_what_was_found(plan, gpu, capsys):
    old = {"Another": {"some shape": [4, 8]}, GPU: {gpu.keys[1]: [16, 2], gpu.keys[2]: [16, 4]}}
    plan.TABLE.write_text(json.dumps(old))
    gpu.ratios = {(key, (4, 2)): 0.9 for key in gpu.keys}
    gpu.fails = {(gpu.keys[1], (8, 2)): RuntimeError("an illegal memory access")}
    gpu.deadly = gpu.fails
    assert tune_triton.main([]) == tune_triton.FAILED
    assert tuned(plan) == {"Another": old["Another"], GPU: {gpu.keys[0]: [4, 2], **old[GPU]}}
    assert plan._table() == old  # no choice of the trials stays behind
    assert capsys.readouterr().err.splitlines()[-1] == (
        "python -m bench.tune_triton: error: the device is lost: "
        "RuntimeError: CUDA error: an illegal memory access was encountered"
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA or AMD GPU")
def test_a_shape_is_tuned_without_a_trace(plan):
    from bench.measure.cases import Operation

    device = torch.device("cuda")
    key, choice = tune_triton.tune(Operation(SHAPE, "block"), device)
    assert key == plan.key(SHAPE, True, True, torch.float32)
    assert choice is None or len(choice) == 2
    assert plan.choice(SHAPE, True, True, torch.float32, plan.machine_of(device)) == plan.Choice()

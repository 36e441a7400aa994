"""The tuner: what it keeps, that its table is heeded, and what it says without a GPU."""

import json

import pytest
import torch

from bench import tune_triton
from bench.statistics import Ratio

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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA or AMD GPU")
def test_a_shape_is_tuned_without_a_trace(plan):
    from bench.cases import Operation

    device = torch.device("cuda")
    key, choice = tune_triton.tune(Operation(SHAPE, "block"), device)
    assert key == plan.key(SHAPE, True, True, torch.float32)
    assert choice is None or len(choice) == 2
    assert plan.choice(SHAPE, True, True, torch.float32, plan.machine_of(device)) == plan.Choice()

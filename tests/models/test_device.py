"""Devices: found, or missed in one line."""

import pytest
import torch

from models import device


def test_cpu_is_everywhere():
    assert device.find("cpu") == torch.device("cpu")
    assert device.find("cpu:0") == torch.device("cpu:0")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cpu:-1", "CPU", "meta"])
def test_unknown_names_are_refused(name):
    with pytest.raises(ValueError, match="choose from cpu, cuda, rocm, xpu, mps"):
        device.find(name)


@pytest.mark.parametrize("name", ["cuda", "rocm", "xpu", "mps"])
def test_a_device_is_found_or_its_absence_is_one_line(name):
    present = {"cuda": torch.cuda, "rocm": torch.cuda, "xpu": torch.xpu, "mps": torch.backends.mps}[name]
    if present.is_available() and (name not in ("cuda", "rocm") or (torch.version.hip is not None) == (name == "rocm")):
        assert torch.ones(2, device=device.find(name)).sum().item() == 2
        return
    with pytest.raises(device.DeviceUnavailableError, match=f"^no {name} device: .*$"):
        device.find(name)


def test_cuda_and_rocm_are_never_the_same_build(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.find("rocm") == torch.device("cuda")
    with pytest.raises(device.DeviceUnavailableError, match="built without CUDA"):
        device.find("cuda")


def test_a_device_with_a_number_becomes_the_current_one(monkeypatch):
    """Events and kernels that name no device go to the current one, whichever tensors they are about."""
    chosen = []
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    assert device.select("cuda:1") == torch.device("cuda:1")
    assert chosen == [1]
    assert device.select("cuda") == torch.device("cuda")
    assert device.select("cpu:0") == torch.device("cpu:0")
    assert chosen == [1]


def test_a_device_that_raises_when_waited_for_is_lost(monkeypatch):
    assert device.why_lost(torch.device("cpu")) is None

    def illegal(_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch.accelerator, "synchronize", illegal)
    assert device.why_lost(torch.device("cuda")) == "CUDA error: an illegal memory access was encountered"
    assert device.why_lost(torch.device("cpu")) is None

"""Networks of torchvision do as before with their batch norms swapped and fused."""

import copy
import os
import re

import psutil
import pytest
import torch
import torchvision
from torch import nn

from kernels import convert
from tests.kernels.conversions import assert_alike

WITH_BATCH_NORM = re.compile(
    r"densenet|efficientnet|googlenet|inception_v3|mnasnet|mobilenet|regnet|resnet|resnext|shufflenet|vgg.*_bn"
)
EVERY = [name for name in torchvision.models.list_models(torchvision.models) if WITH_BATCH_NORM.search(name)]
FEW = ["resnet18", "mobilenet_v3_small", "densenet121", "googlenet", "shufflenet_v2_x0_5", "mnasnet0_5"]
"""One of each way to write a network. `BNBENCH_EVERY_MODEL=1` asks for all of torchvision's: half an hour."""

COPIES = 7
"""Of the parameters: two networks, their gradients and saved states, and one to spare."""


def parameter_bytes(name):
    """In float64, from what torchvision says of trained ones."""
    return 8 * max(weights.meta["num_params"] for weights in torchvision.models.get_model_weights(name))


@pytest.mark.parametrize("name", EVERY if os.environ.get("BNBENCH_EVERY_MODEL") else FEW)
def test_networks_of_torchvision_do_as_before(name):
    settings = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    if name == "inception_v3":
        settings["aux_logits"] = False  # which take larger images
    needed, there = COPIES * parameter_bytes(name), psutil.virtual_memory().available
    if needed > there:
        pytest.skip(f"needs {needed / 2**30:.0f} GiB of memory, {there / 2**30:.0f} are free")
    torch.manual_seed(0)
    # In float64, where two roundings of a deep network are still the same network.
    original = torchvision.models.get_model(name, weights=None, **settings).double()
    converted, report = convert(copy.deepcopy(original), "cpu_fused")
    kinds = [type(part) for part in original.modules() if isinstance(part, nn.BatchNorm2d)]
    assert report.count("fused") + report.count("swapped") == len(kinds)
    size = 75 if name == "inception_v3" else 64
    assert_alike(converted, original, torch.randn(3, 3, size, size, dtype=torch.float64))

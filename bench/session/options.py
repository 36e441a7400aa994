"""The options of the main job."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from bench.record.operations import BLOCKS, MEMORY_FORMATS
from bench.session import time_limit
from models.recipes import LENET, RECIPES, RESNET20
from models.training import Settings

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
CELL_SECONDS = {LENET: 300, RESNET20: 1800}
QUICK_IMAGES = 5120  # twenty whole batches


def positive(text: str) -> int:
    """An option that counts something."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return number


def worlds(text: str) -> list[int]:
    """Numbers of processes."""
    return list(dict.fromkeys(positive(part) for part in text.split(",")))


def training_settings(option: argparse.Namespace, seed: int) -> Settings:
    """How the network that is asked for is trained under a seed."""
    usual = RECIPES[option.network].settings
    return replace(usual, epochs=option.epochs or (1 if option.quick else usual.epochs), seed=seed)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the main job."""
    group = parser.getgroup("bnbench")
    add = group.addoption
    add("--device", default="cpu", metavar="DEVICE", help="cpu, cuda, rocm, xpu or mps (default: cpu)")
    add(
        "--impl",
        action="append",
        default=[],
        metavar="NAME",
        help="an implementation, or FILE.py:FUNCTION; repeatable (default: all, the network without batch norm, and the"
        " alternatives in step.md, which are named as their rows are)",
    )
    add(
        "--network",
        choices=list(RECIPES),
        default=LENET,
        help="what is trained; all other measurements are of LeNet (default: lenet)",
    )
    add("--epochs", type=positive, metavar="N", help="epochs of training (default: 10; 1 with --quick)")
    add("--seeds", type=positive, default=1, metavar="N", help="train with seeds 0 to N-1 (default: 1)")
    add(
        "--dtype",
        choices=list(DTYPES),
        default="float32",
        help="type of the batch in latency (default: float32)",
    )
    add(
        "--threads",
        type=positive,
        metavar="N",
        help="threads of every implementation on the CPU (default: torch's, one per core)",
    )
    add("--quick", action="store_true", help="two operations, one epoch on 5,120 images: a smoke run, no result")
    add("--data-dir", metavar="DIR", help="folder with Fashion-MNIST's idx files")
    add("--results-dir", metavar="DIR", help="default: results; results/quick with --quick")
    add("--isolate", action="store_true", help="measure every implementation in its own process, not only files")
    add(
        "--cell-timeout",
        type=positive,
        metavar="SECONDS",
        help="of a cell or an epoch of an implementation in its own process (default: 300; 1800 with resnet20)",
    )
    add(
        "--time-limit",
        type=time_limit.seconds,
        metavar="SECONDS",
        help="stop cleanly before this much wall time; continue with --resume (default: no limit)",
    )
    add(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="measure in a network: torchvision's NAME, or FILE.py:FUNCTION that returns (module, input); repeatable",
    )
    add(
        "--input",
        metavar="NxCxHxW",
        help="input of torchvision's networks (default: 32x3x224x224)",
    )
    add(
        "--processes",
        type=worlds,
        default=[],
        metavar="N,...",
        help="worlds of processes that divide a batch, such as 1,2,4 (default: 2, 4 and 8, up to the cores or GPUs)",
    )
    add("--resume", action="store_true", help="continue the newest run in the results folder")
    operations_options(add)


def operations_options(add: Callable[..., None]) -> None:
    """What latency is measured of; `selection.selected` reads them, and says in one line what is wrong with them."""
    add(
        "--shape",
        action="append",
        default=[],
        metavar="NxCx...",
        help="latency of input of this shape, 2-D to 5-D, such as 32x64x56x56; repeatable (default: the standard ones)",
    )
    add(
        "--block",
        action="append",
        default=[],
        metavar="BLOCK",
        help=f"what is around batch norm: {', '.join(BLOCKS)}; repeatable (default: none and LeNet's, and residual+relu"
        " at the shapes of ResNet)",
    )
    add(
        "--memory-format",
        action="append",
        default=[],
        metavar="FORMAT",
        help=f"{' or '.join(MEMORY_FORMATS)}; repeatable (default: contiguous)",
    )

"""Batch norm, residual, activation and max-pool in one Triton kernel each way, or two where one program is too few.

kernel_calls.py   the launches of a forward and of a backward
steps.py          the same in four steps, between which processes can meet
plan.py           one launch or two, tiles and programs
launch.py         a kernel launched again without its compiler
device/           what runs on the device
tuned.json        what `python -m bench.tune_triton` found, where it has run
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os

import torch
from torch import Tensor

from kernels.contract import Implementation
from kernels.fused.block import block_of
from kernels.fused.operators import operators_of
from kernels.fused.pair import Kernels
from kernels.fused.steps import or_eager
from kernels.triton_fused.kernel_calls import backward, forward, saved_memory
from kernels.triton_fused.steps import STEPS


def interpreted() -> bool:
    """Whether Triton kernels run in its interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


@functools.cache
def why_unavailable(device: torch.device) -> str | None:
    """Triton compiles for NVIDIA's and AMD's GPUs."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if device.type == "cuda" or (device.type == "cpu" and interpreted()):
        return None
    if device.type == "cpu":
        return "Triton compiles for CUDA and ROCm GPUs (TRITON_INTERPRET=1 runs it on the CPU: for correctness only)"
    return f"Triton's own drivers are for CUDA and ROCm, not for {device.type}"


def backend(x: Tensor, training: bool) -> str:  # noqa: ARG001 - one signature for all
    """Triton, and whether it fuses a * b + c to one rounding: `launch.py` asks for it, a setting can forbid it."""
    if interpreted():
        return "triton interpreter"
    if importlib.util.find_spec("triton") is None:
        return "triton"
    language = importlib.import_module("triton.knobs").language
    enabled = getattr(language, "fp_fusion_enabled", bool)(True)
    return "triton, FP fusion" if enabled else "triton, no FP fusion"


KERNELS = Kernels(
    "triton_fused",
    forward,
    backward,
    saved_memory,
    instead=lambda x: None,  # noqa: ARG005
    fuses_residual=True,
)
OPERATORS = operators_of(KERNELS)
batch_norm_block = block_of(KERNELS, OPERATORS)

IMPLEMENTATION = Implementation(
    name="triton_fused",
    summary="batch norm, activation and pool or residual fused in Triton",
    batch_norm=batch_norm_block,
    batch_norm_block=batch_norm_block,
    why_unavailable=why_unavailable,
    backend=backend,
    counts_batches=True,
    steps=or_eager(STEPS, lambda x: why_unavailable(x.device) is None),
    order=60,
)

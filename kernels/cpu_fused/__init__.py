"""Batch norm, activation and 2 x 2 max-pool or residual in one native kernel each way, for the CPU.

    kernel_calls.py   the two calls into the compiled library
    library.py        the compiled library
    cpp/              the arithmetic: start at batch_norm.cpp
    steps.py          the same in four calls, between which processes can meet
    node.py           a shorter way to it and back through autograd
    node_cpp/         that way, in C++ on torch's headers
    compilation.py    compiles both on first use

A type that the compiler doesn't know (float16, for some) goes through `F.batch_norm` and torch's own activation and
pool instead, and the record's backend says so.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.contract import BlockFunction, Implementation, compose
from kernels.cpu_fused import library
from kernels.cpu_fused.kernel_calls import backward, forward, saved_memory
from kernels.cpu_fused.node import CompiledNode
from kernels.cpu_fused.steps import STEPS
from kernels.fused.autograd import gradients_with
from kernels.fused.block import block_of
from kernels.fused.operators import operators_of
from kernels.fused.pair import Kernels

_torchs_block = compose(F.batch_norm)


def _instead(x: Tensor) -> BlockFunction | None:
    return _torchs_block if x.is_cpu and library.why_not(x.dtype) else None


def why_unavailable(device: torch.device) -> str | None:
    """It is for the CPU, and needs a C++ compiler; asks by compiling."""
    return library.why_not(torch.float32) if device.type == "cpu" else "it is for the CPU"


def backend(x: Tensor, training: bool) -> str:  # noqa: ARG001 - one signature for all
    """The compiler that made the kernels, or what is called in their place."""
    if x.dtype not in library.STORED or library.why_not(x.dtype):
        return f"F.batch_norm: no kernels for {str(x.dtype).removeprefix('torch.')}"
    return f"{library.description(x.dtype)}, {NODE.describe()}"


def compile_seconds(dtype: torch.dtype) -> float | None:
    """What the compiler took for the kernels and for the way to them; None where a part of it was not kept."""
    of_kernels = library.compile_seconds(dtype) if dtype in library.STORED else None
    if of_kernels is None or NODE.call is None:
        return of_kernels
    of_node = NODE.compile_seconds()
    return None if of_node is None else of_kernels + of_node


_IN_PYTHON = Kernels("cpu_fused", forward, backward, saved_memory, _instead, fuses_residual=True)
OPERATORS = operators_of(_IN_PYTHON)
NODE = CompiledNode(gradients_with(_IN_PYTHON, OPERATORS))
KERNELS = replace(_IN_PYTHON, node=NODE)
batch_norm_block = block_of(KERNELS, OPERATORS)

IMPLEMENTATION = Implementation(
    name="cpu_fused",
    summary="batch norm, activation and pool or residual fused in C++",
    batch_norm=batch_norm_block,
    batch_norm_block=batch_norm_block,
    why_unavailable=why_unavailable,
    backend=backend,
    ready=NODE.wait,
    compile_seconds=compile_seconds,
    counts_batches=True,
    steps=replace(STEPS, together=NODE.together),
    order=70,
)

"""What the interpreter leaves out: Triton's just-in-time compiler takes every call, with the arguments it gets.

In a process of its own without the interpreter. There is no GPU to launch on: the driver is replaced by one that
says which GPU to compile for, and a launch ends after compilation.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

PROGRAM = """
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

class Driver:
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device=None: 0)
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))

driver.set_active(Driver())
run, seen = JITFunction.run, []

def compiled(kernel, *args, grid, warmup, **kwargs):
    seen.append(kernel.__name__)
    assert run(kernel, *args, grid=grid, warmup=True, **kwargs).asm["cubin"]

JITFunction.run = compiled
from kernels import BatchNorm, _triton_plan
_triton_plan.INTERPRETED = _triton_plan.Machine(132, 32)
POOLED = {"activation": "sigmoid", "pool": 2}
for shape, dtype, options, training in (
    ((1, 3, 12, 12), torch.float32, POOLED, True),
    ((2, 3, 5, 5), torch.float16, POOLED, True),
    ((64, 20), torch.bfloat16, {"activation": "relu", "affine": False}, True),
    ((40, 2, 24, 24), torch.float64, {}, True),
    ((40, 2, 25, 23), torch.float32, {"momentum": None, **POOLED}, True),
    ((40, 2, 24, 24), torch.float32, POOLED, False),
):
    layer = BatchNorm(shape[1], "triton_fused", **options).train(training)
    layer = layer.double() if dtype == torch.float64 else layer
    y = layer(torch.randn(shape).to(dtype).requires_grad_())
    y.backward(torch.ones_like(y))
print(" ".join(seen))
"""


def test_every_kind_of_call_compiles():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    resident = ["forward_resident", "backward_resident"]
    split = ["statistics", "apply", "backward_sums", "backward"]
    assert done.stdout.split() == [*resident * 3, *split, *split, *split[1:]]

"""What the interpreter leaves out: Triton's just-in-time compiler, and the short way around it.

In processes of their own without the interpreter. There is no GPU to launch on: the driver is replaced by one that
names the GPU to compile for. The compiler takes every call, with the arguments it gets; a launch ends after
compilation.
"""

import pytest

pytest.importorskip("triton")


from tests.kernels.triton_fused import short_way
from tests.processes import start

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
    made = run(kernel, *args, grid=grid, warmup=True, **kwargs)
    assert made.asm["cubin"]
    assert made.metadata.enable_fp_fusion

JITFunction.run = compiled
from kernels import BatchNorm
from kernels.triton_fused import plan
plan.INTERPRETED = plan.Machine(132, 32)
POOLED = {"activation": "sigmoid", "pool": 2}
for shape, dtype, options, training in (
    ((1, 3, 12, 12), torch.float32, POOLED, True),
    ((2, 3, 5, 5), torch.float16, POOLED, True),
    ((64, 20), torch.bfloat16, {"activation": "relu", "affine": False}, True),
    ((40, 2, 24, 24), torch.float64, {}, True),
    ((40, 2, 25, 23), torch.float32, {"momentum": None, **POOLED}, True),
    ((40, 2, 24, 24), torch.float32, POOLED, False),
    ((1, 3, 12, 12), torch.float16, {"residual": True, "activation": "relu"}, True),
    ((64, 20), torch.float32, {"residual": True, "activation": "sigmoid"}, True),
    ((40, 2, 24, 24), torch.bfloat16, {"residual": True, "activation": "relu"}, True),
    ((40, 2, 24, 24), torch.float64, {"residual": True, "activation": "sigmoid"}, False),
    ((40, 2, 24, 24), torch.float32, {"residual": True}, True),
):
    residual = torch.randn(shape).to(dtype) if options.pop("residual", False) else None
    layer = BatchNorm(shape[1], "triton_fused", **options).train(training)
    layer = layer.double() if dtype == torch.float64 else layer
    y = layer(torch.randn(shape).to(dtype).requires_grad_(), residual)
    y.backward(torch.ones_like(y))

from kernels.steps import Around, Normal
from kernels.triton_fused.steps import STEPS
for dtype, activation, pool, adds in (
    (torch.float32, "sigmoid", 2, False),
    (torch.bfloat16, "relu", None, True),
):
    x = torch.randn(40, 2, 25, 23).to(dtype)
    around = Around(x if adds else None, activation, pool)
    normal = Normal(STEPS.statistics(x).values[1:].view(2, -1), torch.ones(2), None)
    y = STEPS.apply(x, normal, around)
    sums, kept, _ = STEPS.backward_sums(y, x, y, normal, around)
    STEPS.backward_apply(kept, x, normal, sums, 100)
print(" ".join(seen))
"""


WIDE = r"""
import re
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

class Driver:
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device=None: 0)
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))

driver.set_active(Driver())
from kernels.triton_fused import device as code, plan

X, REAL, DOUBLE, FLOATS = torch.float16, torch.float32, torch.float64, (0.1, 0.0, 1e-5, 0.0)

def held_to_64_bits(kernel, work, case, tensors, numbers, floats=()):
    made = kernel.warmup(*tensors, *numbers, *floats, case=case, num_warps=work.warps, grid=work.grid)
    assert case.wide
    text = made.asm["ttir"]
    constants = set(re.findall(r"(%\w+) = arith.constant", text))
    for line in (line.split(" loc(")[0] for line in text.splitlines()):
        assert not re.search(r"= arith\.(add|sub|mul|div|rem|min|max)s?i .*i32>?$", line), line
        if offset := re.search(r"= tt\.addptr %\w+, (%\w+) ", line):
            assert offset[1] in constants or re.search(r"i64>?$", line), line
    print(kernel.__name__)

for shape, planes, pool in (
    ((16, 2**18, 32, 32), True, True),
    ((16, 2**18, 31, 33), True, False),
    ((16, 2**18, 31, 33), False, True),
    ((2**22, 2**10, 1, 1), False, False),
):
    machine = plan.Machine(2**20, 32)
    parts = plan.divide(shape, planes, False, None, True, False, X, machine, False)
    work = plan.divide(shape, planes, pool, "sigmoid", True, False, X, machine, False)
    held_to_64_bits(code.statistics, parts, parts.case, (X, REAL, None), (parts.images, parts.tiles))
    for more in (None,) if pool else (None, X):
        numbers = (work.images, parts.tiles * parts.case.BM, work.tiles)
        tensors = (X, more, X, REAL, REAL, REAL, REAL, None, REAL, REAL)
        held_to_64_bits(code.apply, work, work.merging(parts), tensors, numbers, FLOATS)
        numbers = (work.images, work.tiles)
        held_to_64_bits(code.backward_sums, work, work.case, (X, X, more, more, REAL, REAL, REAL, REAL), numbers)
    held_to_64_bits(code.backward, work, work.merging(work), (X, X, X, *[REAL] * 6), numbers)
    if pool:  # what is left has the same sweeps
        continue
    held_to_64_bits(code.backward_apply, work, work.case, (X, X, X, DOUBLE, REAL, REAL, DOUBLE), numbers)
    held_to_64_bits(code.normalize, work, work.case, (X, X, X, DOUBLE, REAL, REAL), numbers)
    numbers = (parts.images, parts.tiles * parts.case.BM)
    held_to_64_bits(code.merge, parts, parts.merging(parts), (REAL, DOUBLE), numbers)
"""


def in_a_process(*command):
    """What it prints."""
    # The default of Triton 3.10: what is wanted of the compiler must be said.
    code, output = start(*command, TRITON_INTERPRET="0", TRITON_DEFAULT_FP_FUSION="0").wait()
    assert code == 0, output
    return output


def test_every_kind_of_call_compiles():
    printed = in_a_process("-c", PROGRAM)
    resident = ["forward_resident", "backward_resident"]
    split = ["statistics", "apply", "backward_sums", "backward"]
    steps = ["statistics", "merge", "normalize", "backward_sums", "backward_apply"]
    without = [*resident * 3, *split, *split, *split[1:]]
    assert printed.split() == [*without, *resident * 2, *split, *split[1:], *split, *steps * 2]


def test_wide_kernels_count_with_64_bits():
    pooled = ["statistics", "apply", "backward_sums", "backward"]
    steps = ["backward_apply", "normalize", "merge"]
    plain_and_residual = ["statistics", *["apply", "backward_sums"] * 2, "backward", *steps]
    assert in_a_process("-c", WIDE).split() == [*pooled, *plain_and_residual, *pooled, *plain_and_residual]


@pytest.mark.parametrize("backend", ["cuda", "hip"])
def test_the_short_way_hands_the_launcher_what_the_compiler_does(backend):
    assert int(in_a_process("-m", short_way.__name__, backend)) > 1500  # launches compared

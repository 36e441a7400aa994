"""What the interpreter leaves out: Triton's just-in-time compiler, and the short way around it.

In processes of their own without the interpreter. There is no GPU to launch on: the driver is replaced by one that
says which GPU to compile for. The compiler takes every call, with the arguments it gets; a launch ends after
compilation. On the short way (`kernels.triton_fused.launch`) nothing is compiled: each launch is compared with what the
compiler would have handed to the launcher. This file is the program of that process, too.
"""

import itertools
import random
import sys
from types import SimpleNamespace
from typing import NamedTuple

import pytest

pytest.importorskip("triton")

import torch
import triton.compiler
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime import JITFunction, driver

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

X, REAL, FLOATS = torch.float16, torch.float32, (0.1, 0.0, 1e-5, 0.0)

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
    without = [*resident * 3, *split, *split, *split[1:]]
    assert printed.split() == [*without, *resident * 2, *split, *split[1:], *split]


def test_wide_kernels_count_with_64_bits():
    pooled = ["statistics", "apply", "backward_sums", "backward"]
    plain_and_residual = ["statistics", *["apply", "backward_sums"] * 2, "backward"]
    assert in_a_process("-c", WIDE).split() == [*pooled, *plain_and_residual, *pooled, *plain_and_residual]


@pytest.mark.parametrize("backend", ["cuda", "hip"])
def test_the_short_way_hands_the_launcher_what_the_compiler_does(backend):
    assert int(in_a_process("-m", __name__, backend)) > 1500  # launches compared


# --- The program: the short way compared -------------------------------------------------------------------------


class Driver:
    """Which GPU to compile for, and where launches go; nothing is there."""

    def __init__(self, target):
        self.target, self.device, self.stream = target, 0, 7

    def get_current_device(self):
        return self.device

    def get_current_stream(self, device):
        return 100 * device + self.stream

    def get_current_target(self):
        return self.target


class Started(NamedTuple):
    """What a launcher was handed."""

    kernel: CompiledKernel
    grid: tuple[int, ...]
    stream: int
    function: int
    metadata: dict
    arguments: list


STARTED: list[Started] = []


class Uncompiled(CompiledKernel):
    """What the compiler would return, without a binary; its launcher writes down what it is handed."""

    def __init__(self, src, target, options, **_):
        self.src, self.name, self.function = src, src.fn.__name__, id(self)
        self.metadata, self.packed_metadata = SimpleNamespace(target=target), options

    def __del__(self):
        pass

    def _init_handles(self):
        pass

    @property
    def run(self):
        return self._start

    def _start(self, x, y, z, stream, function, metadata, about, enter, leave, *arguments):
        for hook in (enter, leave):
            if hook is not None:
                hook(about)
        pointers = [a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments]
        STARTED.append(Started(self, (x, y, z), stream, function, metadata, pointers))


class Comparison:
    """Has each launch made once more through the compiler, and holds them against each other."""

    def __init__(self):
        from kernels.triton_fused.launch import Launch

        self.ways, self.asked = [], 0
        self._launch, self._compile_and_launch = Launch.__call__, JITFunction.run
        Launch.__call__ = lambda launch, *operands: self.compare(launch, *operands)
        JITFunction.run = lambda kernel, *args, **kwargs: self.compile_and_launch(kernel, *args, **kwargs)

    def compile_and_launch(self, kernel, *args, **kwargs):
        self.asked += 1
        return self._compile_and_launch(kernel, *args, **kwargs)

    def compare(self, launch, tensors, floats=()):
        before = self.asked
        self._launch(launch, tensors, floats)
        self.ways.append("short" if self.asked == before else "compiler")
        launch._compile_and_launch(tensors, floats)
        ours, theirs = STARTED[-2:]
        assert ours == theirs, self.ways[-1]
        assert ours.kernel is theirs.kernel

    def ways_of(self, *calls):
        """The ways that the launches of the calls took."""
        self.ways.clear()
        for call in calls:
            call()
        return set(self.ways)


def off_by_one(tensor):
    """As large, at an address that 16 does not divide."""
    return torch.zeros(tensor.numel() + 1, dtype=tensor.dtype)[1:].view(tensor.shape)


def step(
    shape,
    dtype=torch.float32,
    training=True,
    parameters=None,
    rows=False,
    without=None,
    unaligned=(),
    residual=False,
    **options,
):
    """A forward and a backward, on the same tensors each time."""
    from kernels import BatchNorm

    layer = BatchNorm(shape[1], "triton_fused", dtype=parameters, **options).train(training)
    if without:
        setattr(layer, without, None)
    x = torch.zeros(shape, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last) if rows else x
    x = off_by_one(x) if "input" in unaligned else x
    if "weight" in unaligned:
        layer.weight.data = off_by_one(layer.weight)
    added = torch.zeros_like(x) if residual else None
    added = off_by_one(added) if "residual" in unaligned else added
    return step_on(x, layer, added)


def step_on(x, layer, residual=None):
    x.requires_grad_()

    def call():
        y = layer(x, residual)
        y.backward(torch.zeros_like(y))

    return call


POOLED = {"activation": "sigmoid", "pool": 2}
DOUBLE = {"dtype": torch.float64, "parameters": torch.float64}
HALF = {"dtype": torch.float16}
ROWS = {"rows": True, "activation": "relu"}
RESIDUAL = {"residual": True, "activation": "relu"}
RESIDENT, SPLIT, MATRIX = (2, 4, 6, 6), (40, 4, 24, 24), (64, 20)
IMAGES = [RESIDENT, (1, 4, 6, 6), (16, 4, 6, 6), SPLIT, (41, 3, 25, 23), (256, 16, 16, 16)]
OTHERS = [MATRIX, (256, 120), (2000, 64), (5, 3, 7), (5, 3, 2, 3, 4), (400, 3, 70), (7, 1)]
SETTINGS = [
    {},
    HALF,
    {**HALF, "parameters": torch.float16},
    {"dtype": torch.bfloat16, "activation": "relu"},
    DOUBLE,
    {"training": False},
    {"momentum": None},
    {"momentum": 0.3, "eps": 1e-3},
    {"affine": False},
    {"track_running_stats": False},
    {"without": "num_batches_tracked"},
    {"without": "bias"},
    {"without": "weight"},
    RESIDUAL,
    {**RESIDUAL, **HALF},
    {**RESIDUAL, "training": False},
    {"residual": True, **DOUBLE},
]
OF_IMAGES = [
    {**RESIDUAL, "rows": True},
    POOLED,
    {**POOLED, **DOUBLE},
    {**POOLED, "rows": True},
    {**POOLED, "training": False},
    ROWS,
    ROWS | HALF,
]


def every_kind_of_call(comparison):
    """In orders in which each comes after many others; the short way from the second time on."""
    usual = [step(shape, **options) for shape in IMAGES for options in SETTINGS + OF_IMAGES]
    usual += [step(shape, **options) for shape in OTHERS for options in SETTINGS]
    unaligned = [
        step(shape, unaligned=[operand], **options)
        for shape in (RESIDENT, SPLIT, MATRIX)
        for operand, options in itertools.chain(
            itertools.product(("input", "weight"), ({}, HALF)),
            itertools.product(("residual",), (RESIDUAL, {**RESIDUAL, **HALF})),
        )
    ]
    order = random.Random(0)
    for time in range(3):
        calls = usual + unaligned
        order.shuffle(calls)
        for call in calls:
            ways = comparison.ways_of(call)
            if call in unaligned:
                assert "compiler" in ways
            elif time > 0:
                assert ways == {"short"}
    assert {started.kernel.name for started in STARTED} == {
        *("forward_resident", "backward_resident", "statistics", "apply", "backward_sums", "backward")
    }


def devices_and_streams(comparison, active, calls):
    kernels = {started.kernel for started in STARTED}
    active.device = 1
    assert comparison.ways_of(*calls) == {"compiler"}
    assert not {started.kernel for started in STARTED[-8:]} & kernels
    assert comparison.ways_of(*calls) == {"short"}
    active.stream = 9
    assert comparison.ways_of(*calls) == {"short"}
    assert STARTED[-1].stream == 109
    active.device, active.stream = 0, 7
    assert comparison.ways_of(*calls) == {"short"}


def through_the_compiler_while(comparison, calls, holder, name, value):
    """What is asked for meanwhile, and that it is not kept."""
    usual = getattr(holder, name)
    setattr(holder, name, value)
    for _ in range(2):
        assert comparison.ways_of(*calls) == {"compiler"}, name
    setattr(holder, name, usual)
    assert comparison.ways_of(*calls) == {"short"}, name


def settings(comparison, calls):
    for holder, name, value in (
        (knobs.runtime, "debug", True),
        (knobs.compilation, "instrumentation_mode", "consan"),
        (knobs.runtime, "add_stages_inspection_hook", lambda *_: ("key", "hash")),
    ):
        through_the_compiler_while(comparison, calls, holder, name, value)


def hooks(comparison, calls):
    """Who watches launches sees each of them: six of two calls, and their like through the compiler."""
    from kernels.triton_fused import device

    told = []

    def hook(about):
        told.append(about.get()["name"])

    for chain in (knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook):
        chain.add(hook)
        assert comparison.ways_of(*calls) == {"compiler"}
        chain.remove(hook)
        assert comparison.ways_of(*calls) == {"short"}
        assert len(told) == 12
        told.clear()
    through_the_compiler_while(comparison, calls, knobs.runtime, "launch_enter_hook", hook)
    assert told[:4] == ["forward_resident"] * 2 + ["backward_resident"] * 2
    told.clear()
    for kernel in (device.apply, device.backward_resident):
        kernel.add_pre_run_hook(lambda *_, **__: told.append("before"))
        assert comparison.ways_of(*calls) == {"compiler", "short"}
        kernel.pre_run_hooks.clear()
    assert told == ["before"] * 4


def storages(comparison, backend, calls):
    """On AMD the compiler is told whether 32 bits reach all of a tensor's storage."""
    from kernels import BatchNorm

    rows, channels = MATRIX
    large = torch.empty(2**29 + rows * channels)
    part = step_on(large[: rows * channels].view(MATRIX), BatchNorm(channels, "triton_fused"))
    whole = step(MATRIX)
    assert comparison.ways_of(whole) == {"short"}
    assert comparison.ways_of(part) == {"compiler" if backend == "hip" else "short"}
    assert comparison.ways_of(whole) == {"short"}
    if backend == "hip":
        through_the_compiler_while(comparison, calls, knobs.amd, "use_buffer_ops", False)


def other_compilers(comparison, calls):
    """Nothing is kept of what a backend made that is not looked for."""
    from kernels.triton_fused import launch, plan

    plan.divide.cache_clear()
    launch.AMD = not launch.AMD
    for _ in range(2):
        assert comparison.ways_of(*calls) == {"compiler"}


def main(backend):
    active = Driver(GPUTarget("hip", "gfx942", 64) if backend == "hip" else GPUTarget("cuda", 90, 32))
    driver.set_active(active)
    triton.compiler.compile = Uncompiled
    from kernels.triton_fused import launch, plan

    launch.AMD = backend == "hip"
    plan.INTERPRETED = plan.Machine(132, active.target.warp_size)
    comparison = Comparison()
    every_kind_of_call(comparison)
    calls = [step(MATRIX), step(SPLIT, **POOLED)]
    comparison.ways_of(*calls)
    assert comparison.ways_of(*calls) == {"short"}
    devices_and_streams(comparison, active, calls)
    settings(comparison, calls)
    hooks(comparison, calls)
    storages(comparison, backend, calls)
    other_compilers(comparison, calls)
    print(len(STARTED) // 2)


if __name__ == "__main__":
    main(sys.argv[1])

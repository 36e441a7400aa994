"""The program that compares the short way to a launch (`kernels.triton_fused.launch`) with the compiler's.

`test_triton_jit.py` runs it in a process without the interpreter. Nothing is compiled: each launch is compared with
what the compiler would have handed to the launcher.
"""

import itertools
import random
import sys
from types import SimpleNamespace
from typing import NamedTuple

import torch
import triton.compiler
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import CompiledKernel
from triton.runtime import JITFunction, driver

from tests.kernels.triton_fused.every_call import (
    HALF,
    IMAGES,
    MATRIX,
    OF_IMAGES,
    OTHERS,
    POOLED,
    RESIDENT,
    RESIDUAL,
    SETTINGS,
    SPLIT,
    step,
    step_on,
    steps,
)


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


def every_kind_of_call(comparison):
    """In orders in which each comes after many others; the short way from the second time on."""
    usual = [step(shape, **options) for shape in IMAGES for options in SETTINGS + OF_IMAGES]
    usual += [step(shape, **options) for shape in OTHERS for options in SETTINGS]
    usual += [steps(SPLIT, dtype) for dtype in (torch.float32, torch.float64, torch.bfloat16)]
    usual += [steps(shape, torch.float32, **POOLED) for shape in (RESIDENT, SPLIT)]
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
        *("forward_resident", "backward_resident", "statistics", "apply", "backward_sums", "backward"),
        *("merge", "normalize", "backward_apply"),
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

    launches = []

    def hook(about):
        launches.append(about.get()["name"])

    for chain in (knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook):
        chain.add(hook)
        assert comparison.ways_of(*calls) == {"compiler"}
        chain.remove(hook)
        assert comparison.ways_of(*calls) == {"short"}
        assert len(launches) == 12
        launches.clear()
    through_the_compiler_while(comparison, calls, knobs.runtime, "launch_enter_hook", hook)
    assert launches[:4] == ["forward_resident"] * 2 + ["backward_resident"] * 2
    launches.clear()
    for kernel in (device.apply, device.backward_resident):
        kernel.add_pre_run_hook(lambda *_, **__: launches.append("before"))
        assert comparison.ways_of(*calls) == {"compiler", "short"}
        kernel.pre_run_hooks.clear()
    assert launches == ["before"] * 4


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

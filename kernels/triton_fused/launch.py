"""Launch a Triton kernel again without asking its just-in-time compiler again which compiled form it takes.

`kernel[grid](...)` binds the arguments, classifies each by type, value and alignment and makes text of it to look the
compiled kernel up: more than twice the work that is left here. A `Launch` asks once per kind of tensors, keeps the
`CompiledKernel` that the compiler returns, and starts it itself from then on, as `CompiledKernel.__getitem__` does.

It must never find another kernel than the compiler would. Triton (3.6 to 3.9) chooses by these, and here

    the kernel, whole numbers, constants, options  are fixed for a `Launch`
    the device, each tensor's type, or None        are the key, and each tensor's device
    each pointer divisible by 16                   is required: 16-byte loads depend on it
    on AMD, each storage within 2 GiB              is required: offsets of 32 bits depend on it
    floats                                         make no difference
    debug mode, instrumentation, other compilers   are required to be off

and what is required but not so goes through the compiler. So does a launch that a profiler's hook wants to see. Nothing
here allocates on the device or waits for it, so a launch can be captured in a graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from triton import knobs
from triton.compiler import CompiledKernel
from triton.runtime import JITFunction
from triton.runtime.driver import driver

from kernels.routes import memory_of

AMD = torch.version.hip is not None
ALIGNED = 16
WITHIN_32_BITS = 2**31 - 1


class Launch:
    """A kernel with all of its arguments but the tensors and the floats.

    The kernel's parameters are tensors, whole numbers, floats, and a constant `case`, in this order.

    Args:
        kernel: What `triton.jit` made.
        grid: Programs in two directions.
        numbers: The whole numbers.
        case: The constant.
        warps: Of a program.
    """

    def __init__(self, kernel: Any, grid: tuple[int, int], numbers: tuple[int, ...], case: Any, warps: int) -> None:
        self.kernel = kernel
        self.grid = grid
        self.numbers = numbers
        self.case = case
        # Fusion to a * b + c in one rounding is explicit, since Triton's default changes in 3.10.
        self.options = {"num_warps": warps, "enable_fp_fusion": True}
        self._is_compiled = isinstance(kernel, JITFunction)
        # Whole kernels, not their handles: a kernel without a reference is unloaded.
        self._kept: dict[tuple[Any, ...], CompiledKernel] = {}

    def __call__(self, tensors: tuple[Tensor | None, ...], floats: tuple[float, ...] = ()) -> None:
        """Launch on the current device and stream."""
        if not self._is_compiled:  # but interpreted: there may be no driver to ask
            for tensor in tensors:
                memory_of(tensor)
            self._compile_and_launch(tensors, floats)
            return
        kind: list[Any] = []
        pointers: list[int | None] = []
        bits = 0
        for tensor in tensors:
            if tensor is None:
                kind.append(None)
                pointers.append(None)
            else:
                pointer = memory_of(tensor) or 0
                kind.append(tensor.dtype)
                kind.append(tensor.get_device())
                pointers.append(pointer)
                bits |= pointer
        if bits % ALIGNED or not _usual(self.kernel, tensors):
            self._compile_and_launch(tensors, floats)
            return
        active = driver.active
        device = active.get_current_device()
        key = (device, *kind)
        compiled = self._kept.get(key)
        if compiled is None:
            launched = self._compile_and_launch(tensors, floats)
            if _stands_for_its_kind(self.kernel, launched):
                self._kept[key] = launched
            return
        # As numbers the launcher takes pointers as they are; of a tensor it asks the driver first whose memory that is.
        # Here the key says so: a launch on the CPU's memory fails in the compiler's hands, and so is never kept.
        # Hooks and their arguments are None: there are none.
        compiled.run(
            *self.grid, 1, active.get_current_stream(device), compiled.function, compiled.packed_metadata,
            None, None, None, *pointers, *self.numbers, *floats, self.case,
        )  # fmt: skip

    def _compile_and_launch(self, tensors: tuple[Tensor | None, ...], floats: tuple[float, ...]) -> Any:
        return self.kernel[self.grid](*tensors, *self.numbers, *floats, case=self.case, **self.options)


def _usual(kernel: Any, tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether the compiler would be asked with its usual settings, and no one watches the launch."""
    runtime = knobs.runtime
    return not (
        runtime.debug
        or knobs.compilation.instrumentation_mode
        or runtime.add_stages_inspection_hook
        or kernel.pre_run_hooks
        or _watches(runtime.launch_enter_hook)
        or _watches(runtime.launch_exit_hook)
        or (AMD and not _within_32_bits(tensors))
    )


def _watches(hook: Any) -> bool:
    """Whether a hook does something: it is a chain of functions, which may be empty, or a function, or None."""
    return bool(getattr(hook, "calls", hook))


def _within_32_bits(tensors: tuple[Tensor | None, ...]) -> bool:
    """Whether Triton tells its compiler for AMD of every tensor that 32 bits reach all of it."""
    return bool(knobs.amd.use_buffer_ops) and all(
        tensor is None or tensor.untyped_storage().nbytes() <= WITHIN_32_BITS for tensor in tensors
    )


def _stands_for_its_kind(kernel: Any, launched: Any) -> bool:
    """Whether the answer to a call can be given to the next of its kind.

    Not a hook's None, nor the promise of a kernel that is still being compiled; not for a backend of whose
    specialization nothing is known here, nor for a kernel that the compiler checks against changing globals.
    """
    return (
        isinstance(launched, CompiledKernel)
        and launched.metadata.target.backend == ("hip" if AMD else "cuda")
        and not kernel.used_global_vals
    )

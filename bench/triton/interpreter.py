"""Watch Triton kernels in its interpreter: which are launched, on what, how many bytes they move, and where.

The interpreter runs a kernel on the CPU, program after program, when `TRITON_INTERPRET=1` is set before Triton is
imported. It says nothing about time; what it loads and stores is what a GPU would load and store.
Source: https://triton-lang.org/main/programming-guide/chapter-3/debugging.html
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch


class StrayAccessError(Exception):
    """A kernel loaded from or stored to memory that belongs to none of its arguments."""


@dataclass(frozen=True)
class Pointer:
    """A tensor argument, as far as a compiler cares.

    Attributes:
        dtype: Of its elements.
        aligned: Whether it starts at a multiple of 16 bytes.
    """

    dtype: torch.dtype
    aligned: bool


@dataclass
class Launch:
    """One kernel launch.

    Attributes:
        file: Where the kernel is defined.
        kernel: Its name.
        grid: Programs in each direction.
        arguments: By name: a `Pointer` for a tensor, else the value.
        constants: Names of the arguments that are constants of the compiler.
        options: What else the launch says: `num_warps` and the like.
        loaded: Bytes loaded, by argument; masked lanes load nothing.
        stored: Bytes stored, by argument.
    """

    file: str
    kernel: str
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    constants: tuple[str, ...]
    options: dict[str, Any]
    loaded: dict[str, int] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)

    @property
    def programs(self) -> int:
        """In all directions together."""
        return math.prod(self.grid)

    @property
    def bytes_moved(self) -> int:
        """Loaded and stored."""
        return sum(self.loaded.values()) + sum(self.stored.values())


@contextlib.contextmanager
def watch(measure: bool = True) -> Iterator[list[Launch]]:
    """Inside, every kernel that the interpreter runs is written down, and held to the memory of its arguments.

    Args:
        measure: Whether to run the kernels; False writes the launches down and skips their work.

    Raises:
        StrayAccessError: Inside, at the first access outside of all tensors of the launch.
        RuntimeError: Triton is not in its interpreter.
    """
    from triton.runtime import interpreter

    from kernels.triton_fused import interpreted

    if not interpreted():
        raise RuntimeError("set TRITON_INTERPRET=1 before Triton is imported")
    launches: list[Launch] = []
    builder = interpreter.interpreter_builder
    memory: list[tuple[str, int, int]] = []
    run = interpreter.InterpretedFunction.run

    def written_down(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        arguments = dict(zip(kernel.arg_names, args, strict=False))
        arguments |= {name: value for name, value in kwargs.items() if name in kernel.arg_names}
        places = grid(arguments) if callable(grid) else grid
        launches.append(
            Launch(
                kernel.fn.__code__.co_filename,
                kernel.fn.__name__,
                tuple(places),
                {name: _argument(arguments[name]) for name in kernel.arg_names if name in arguments},
                tuple(n for n, kind in kernel.fn.__annotations__.items() if "constexpr" in str(kind)),
                {name: value for name, value in kwargs.items() if name not in kernel.arg_names},
            )
        )
        if not measure:
            return None
        memory[:] = [
            (name, tensor.data_ptr(), tensor.data_ptr() + _extent(tensor))
            for name, tensor in arguments.items()
            if isinstance(tensor, torch.Tensor)
        ]
        return run(kernel, *args, grid=grid, warmup=warmup, **kwargs)

    def count(moved: dict[str, int], pointers: Any, mask: Any) -> None:
        addresses = np.asarray(pointers.data)[np.asarray(mask.data)].astype(np.int64)
        if not addresses.size:
            return
        size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        first, last = int(addresses.min()), int(addresses.max()) + size
        for name, start, end in memory:
            if start <= first and last <= end:
                moved[name] = moved.get(name, 0) + addresses.size * size
                return
        kernel = launches[-1].kernel
        raise StrayAccessError(f"{kernel} touches {last - first} bytes that lie in none of its arguments")

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        # The interpreter prepares Triton's language again for every function that a kernel calls, which is a third of
        # the time; for those beside the kernel its launch has just done it.
        if function.fn.__code__.co_filename == launches[-1].file:
            return function.rewrite()(*args, **kwargs)
        return prepare_and_call(function, *args, **kwargs)

    prepare_and_call = interpreter.InterpretedFunction.__call__
    load, store = builder.create_masked_load, builder.create_masked_store

    def counted_load(pointers: Any, mask: Any, *rest: Any, **more: Any) -> Any:
        count(launches[-1].loaded, pointers, mask)
        return load(pointers, mask, *rest, **more)

    def counted_store(pointers: Any, value: Any, mask: Any, *rest: Any, **more: Any) -> Any:
        count(launches[-1].stored, pointers, mask)
        return store(pointers, value, mask, *rest, **more)

    with (
        mock.patch.object(interpreter.InterpretedFunction, "run", written_down),
        mock.patch.object(interpreter.InterpretedFunction, "__call__", call),
        mock.patch.object(builder, "create_masked_load", counted_load),
        mock.patch.object(builder, "create_masked_store", counted_store),
    ):
        yield launches


def _extent(tensor: torch.Tensor) -> int:
    """Bytes from its first element to the end of its last."""
    if tensor.numel() == 0:
        return 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return int(last + 1) * tensor.element_size()


def _argument(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return Pointer(value.dtype, value.data_ptr() % 16 == 0)
    return value

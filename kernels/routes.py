"""Who else takes part in a call, and so which way it goes: straight to the kernels, or not.

    straight to the kernels    plain tensors, and nothing that watches: every other way takes longer than a small kernel
    through the operators      something wants to see or replace what runs: a mode, a tracer, torch.compile, a subclass
    in eager operations        a transform of torch.func or forward-mode differentiation: kernels have no tangents

The three have the same semantics.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch._C import _functorch, _is_tracing, _len_torch_dispatch_stack, _len_torch_function_stack
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import forward_ad
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext


def is_transformed() -> bool:
    """Whether a transform of torch.func is at work, or forward-mode differentiation."""
    return forward_ad._current_level >= 0 or _functorch.peek_interpreter_stack() is not None


def is_watched(*tensors: Tensor | None) -> bool:
    """Whether someone watches, traces or replaces torch's operations, or a tensor isn't plain numbers in memory."""
    if _len_torch_dispatch_stack() or _is_tracing() or (_len_torch_function_stack() and _is_heard()):
        return True
    for tensor in tensors:  # any() and a generator take twice as long
        kind = type(tensor)
        if kind is nn.Parameter or tensor is None:
            continue
        if kind is not Tensor or tensor.is_neg():
            return True
    return False


def _is_heard() -> bool:
    """Whether there is a function mode other than torch's default device: here every tensor names its own."""
    return any(type(mode) is not DeviceContext for mode in _get_current_function_mode_stack())


def memory_of(tensor: Tensor | None) -> int | None:
    """The address of a tensor's numbers, or None for None.

    Raises:
        RuntimeError: There are none in memory.
    """
    if tensor is None:
        return None
    address: int = tensor.data_ptr()
    if not address:
        raise RuntimeError("a kernel can't read a tensor without memory: it is fake, on meta, or was freed")
    return address


def move(running: Tensor, value: Tensor) -> None:
    """Copy in place, and from inside of a transform to a tensor of outside, as native kernels do.

    Raises:
        RuntimeError: One running tensor for a whole batch of a vmap.
    """
    if torch.compiler.is_compiling() or not is_transformed():
        running.copy_(value)
        return
    outside = _functorch.maybe_get_level(running)
    while _functorch.is_gradtrackingtensor(value) and _functorch.maybe_get_level(value) > outside:
        value = _functorch.get_unwrapped(value)
    if torch._is_functional_tensor(value) and not torch._is_functional_tensor(running):
        torch._sync(value)  # type: ignore[attr-defined]
        value = torch._from_functional_tensor(value)
    if _functorch.maybe_get_level(value) > outside:
        raise RuntimeError(
            "vmap: running_mean and running_var, which are updated in place, are one for the whole batch: map over them"
            " too, or give None"
        )
    if outside >= 0:
        running.copy_(value)
        return
    with temporarily_clear_interpreter_stack(), torch.no_grad():
        running.copy_(forward_ad.unpack_dual(value).primal if forward_ad._current_level >= 0 else value)

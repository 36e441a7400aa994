"""The one validation of all implementations: what `F.batch_norm` refuses is refused, before anything moves.

Broadcasting, type promotion and views would accept much of it, and calculate something else. The types of the errors
are torch's, and so are the words where they say what is wrong.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_PARAMETERS = {
    torch.float32: (torch.float32,),
    torch.float64: (torch.float64,),
    torch.float16: (torch.float16, torch.float32),
    torch.bfloat16: (torch.bfloat16, torch.float32),
}
"""For each type of input those that its statistics and parameters, all of one type, may have."""
_POSITIONS = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps")
_NUMBERS = (float, int, torch.SymFloat, torch.SymInt)


def check_arguments(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float | None,
    eps: float,
) -> None:
    """Refuse what `F.batch_norm` refuses.

    Raises:
        TypeError: An argument of another kind: no tensor, no number, no bool.
        ValueError: One value per channel in training, one running tensor without the other, or an eps that may
            divide by zero.
        IndexError, RuntimeError: An input without channels.
        NotImplementedError: An input of integers or complex numbers.
        RuntimeError: No running tensors in evaluation; statistics or parameters of another size, type or device than
            the input's, or statistics that ask for a gradient.
    """
    # Kernels for small matrices take little longer than this, so valid arguments cost no call.
    if type(training) is not bool or type(momentum) is not float or type(eps) is not float or eps <= 0.0:
        check_scalars(training, momentum, eps)
    check_tensors(input, running_mean, running_var, weight, bias, training)
    if running_mean is None or running_var is None:
        check_statistics(running_mean, running_var, training)
    if training:
        check_batch_size(input)


def check_statistics(running_mean: Tensor | None, running_var: Tensor | None, training: bool) -> None:
    """Refuse one running tensor without the other, and evaluation without both.

    Raises:
        ValueError, RuntimeError: In training, and in evaluation.
    """
    if not training and (running_mean is None or running_var is None):
        missing = "running_mean" if running_mean is None else "running_var"
        raise RuntimeError(f"{missing} must be defined in evaluation mode")
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must either both be None or neither be None")


def check_batch_size(x: Tensor) -> None:
    """Refuse input with one value per channel, which has no variance.

    Raises:
        ValueError: One value per channel.
    """
    if x.numel() == x.shape[1] and x.numel() > 0:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.size()}")


def check_scalars(training: bool, momentum: float | None, eps: float) -> None:
    """Refuse arguments that are no bool or no number, and an eps that may divide by zero.

    Raises:
        TypeError, ValueError: See `check_arguments`.
    """
    if type(training) is not bool:
        raise _unlike("training", "bool", training)
    if type(momentum) is not float:
        _check_number("momentum", momentum)
    if type(eps) is not float:
        _check_number("eps", eps)
    if eps <= 0.0 and (training or eps < 0.0):
        sign = "positive during training" if training else "non-negative"
        raise ValueError(f"batch_norm eps must be {sign}, but got {eps}")


def check_tensors(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    operator: str = "",
) -> None:
    """Refuse per-channel tensors that don't go with the input, and input of no floating type.

    Args:
        input: (N, C, ...).
        running_mean: (C,) or None.
        running_var: (C,) or None.
        weight: C elements of any shape, or None.
        bias: C elements of any shape, or None.
        training: Whether the batch's own statistics normalize.
        operator: Prefix of the errors, for an operator with its own name.

    Raises:
        TypeError, ValueError, IndexError, NotImplementedError, RuntimeError: See `check_arguments`.
    """
    of_channels = (running_mean, running_var, weight, bias)
    try:
        dtype, on_cpu = input.dtype, input.is_cpu
        allowed = _PARAMETERS.get(dtype)
        if allowed is None or input.dim() < 2 or input.layout is not torch.strided:
            raise _unfit(input, of_channels, training, operator)
        channels, common = input.shape[1], None
        for tensor in of_channels:
            if tensor is None:
                continue
            kind = tensor.dtype
            if (
                tensor.numel() != channels
                # Twice as fast as to compare devices.
                or (not tensor.is_cpu if on_cpu else tensor.device != input.device)
                or (kind is not common and (common is not None or kind not in allowed))
            ):
                raise _unfit_of_channels(of_channels, tensor, input, common, operator)
            common = kind
        for tensor in (running_mean, running_var):
            if tensor is not None and (tensor.requires_grad or tensor.stride() != (1,)):
                _check_running(of_channels, tensor, input, common, operator)
    except AttributeError:
        for name, value in (("input", input), *zip(_OF_CHANNELS, of_channels, strict=True)):
            if not isinstance(value, Tensor) and (value is not None or name == "input"):
                raise _unlike(name, "Tensor", value) from None
        raise


_OF_CHANNELS = ("running_mean", "running_var", "weight", "bias")


def _check_running(
    of_channels: tuple[Tensor | None, ...], tensor: Tensor, input: Tensor, common: torch.dtype | None, operator: str
) -> None:
    shared = tensor.numel() > 1 and tensor.stride() == (0,)
    if shared or tensor.dim() != 1 or (tensor.requires_grad and torch.is_grad_enabled()):
        raise _unfit_of_channels(of_channels, tensor, input, common, operator)


def check_strided(*tensors: Tensor | None) -> None:
    """Refuse sparse tensors, where no kernel asks for their memory.

    Raises:
        NotImplementedError: One of them is sparse.
    """
    for tensor in tensors:
        if tensor is not None and tensor.layout is not torch.strided:
            raise NotImplementedError(f'"batch_norm" not implemented for {tensor.layout}')


def check_residual(input: Tensor, residual: Tensor) -> None:
    """Refuse a residual that isn't like the input: it would broadcast, or turn the output into another type.

    Raises:
        TypeError: It is no tensor.
        RuntimeError: It has another shape, type or device than the input.
        NotImplementedError: It is sparse.
    """
    if not isinstance(residual, Tensor):
        raise TypeError(f"batch_norm_block(): argument 'residual' must be Tensor, not {type(residual).__name__}")
    if residual.shape != input.shape:
        raise RuntimeError(f"residual should have the input's size {list(input.shape)}, not {list(residual.shape)}")
    if residual.dtype is not input.dtype:
        raise RuntimeError(f"residual is {residual.dtype}, which does not go with an input of {input.dtype}")
    if residual.device != input.device:
        raise RuntimeError(f"expected residual on {input.device} like the input, found {residual.device}")
    check_strided(residual)


def in_one_dimension(parameter: Tensor | None) -> Tensor | None:
    """A weight or bias, which may have any shape, as (C,)."""
    return None if parameter is None else parameter.reshape(-1)


def as_number(value: Any) -> Any:
    """What `check_scalars` let pass, as a number that kernels take."""
    return value if isinstance(value, _NUMBERS) else float(value)


def _check_number(name: str, value: Any) -> None:
    """Refuse what torch doesn't accept as a number: numpy's numbers and tensors of one element are numbers."""
    if isinstance(value, Tensor):
        number = value.dim() == 0 and not value.requires_grad and not value.is_complex()
    else:
        numpys = hasattr(value, "item") and not hasattr(value, "__len__")
        number = isinstance(value.item() if numpys else value, _NUMBERS)
    if not number:
        raise _unlike(name, "float", value)


def _unlike(name: str, kind: str, value: Any) -> TypeError:
    position = _POSITIONS.index(name) + 1
    return TypeError(
        f"batch_norm(): argument '{name}' (position {position}) must be {kind}, not {type(value).__name__}"
    )


def _unfit(input: Tensor, of_channels: tuple[Tensor | None, ...], training: bool, operator: str) -> Exception:
    prefix = f"{operator}: " if operator else ""
    if input.layout is not torch.strided:
        return NotImplementedError(f'{prefix}"batch_norm" not implemented for {input.layout}')
    if input.dim() >= 2:
        return NotImplementedError(f'{prefix}"batch_norm" not implemented for {input.dtype}')
    if training and input.dim() == 1 and input.numel() == 1:
        return ValueError(f"Expected more than 1 value per channel when training, got input size {input.size()}")
    what = f"{prefix}expected an input (N, C, ...), got input size {input.size()}"
    bare = of_channels == (None,) * len(of_channels)
    return IndexError(what) if training and (bare or input.dim() == 0) else RuntimeError(what)


def _unfit_of_channels(
    of_channels: tuple[Tensor | None, ...], tensor: Tensor, input: Tensor, common: torch.dtype | None, operator: str
) -> RuntimeError:
    name = next(name for name, each in zip(_OF_CHANNELS, of_channels, strict=True) if each is tensor)
    channels = input.shape[1]
    if tensor.numel() != channels:
        what = f"{name} should contain {channels} elements not {tensor.numel()}"
    elif tensor.device != input.device:
        what = f"expected {name} on {input.device} like the input, found {tensor.device}"
    elif tensor.dtype not in _PARAMETERS[input.dtype]:
        what = f"{name} is {tensor.dtype}, which does not go with an input of {input.dtype}"
    elif tensor.dtype is not common:
        what = f"{name} is {tensor.dtype}, which does not go with statistics or parameters of {common}"
    elif tensor.dim() != 1:
        what = f"{name} should contain {channels} elements in 1 dim but has {tensor.dim()}"
    elif tensor.stride() == (0,):
        what = f"{name} has one number for all channels, which can't move: clone() it"
    else:
        what = (
            f"The function 'native_batch_norm' is not differentiable with respect to argument '{name}'."
            " This input cannot have requires_grad True."
        )
    return RuntimeError(f"{operator}: {what}" if operator else what)

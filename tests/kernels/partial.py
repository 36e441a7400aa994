"""Honest batch norms that do a part only, or go about it in odd ways: nobody may accuse them."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch.nn import functional as F

from tests.kernels import gradient_faults

HONEST = []


def odd(function):
    HONEST.append(function)
    return function


@odd
def images_only(x, *rest):
    if x.dim() != 4:
        raise NotImplementedError("4-D only")
    return F.batch_norm(x, *rest)


@odd
def matrices_only(x, *rest):
    if x.dim() != 2:
        raise ValueError("expected a matrix")
    return F.batch_norm(x, *rest)


@odd
def inference_only(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if training:
        raise NotImplementedError("inference only")
    return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)


@odd
def inference_without_gradients(x, running_mean, running_var, weight=None, bias=None, training=False, *rest):
    if training:
        raise NotImplementedError("inference only")
    return F.batch_norm(x, running_mean, running_var, weight, bias, training, *rest).detach()


@odd
def float32_only(x, *rest):
    if x.dtype != torch.float32:
        raise NotImplementedError("float32 only")
    return F.batch_norm(x, *rest)


@odd
def gives_float32_whatever_comes(x, running_mean, running_var, weight=None, bias=None, *rest):
    operands = (None if t is None else t.float() for t in (weight, bias))
    running = [None if t is None else t.float() for t in (running_mean, running_var)]
    return F.batch_norm(x.float(), *running, *operands, *rest)


@odd
def calculates_in_float32_whatever_comes(x, running_mean, running_var, weight=None, bias=None, *rest):
    parameters = [None if t is None else t.float() for t in (weight, bias)]
    running = [None if t is None else t.float() for t in (running_mean, running_var)]
    y = F.batch_norm(x.float(), *running, *parameters, *rest)
    for t, moved in zip((running_mean, running_var), running, strict=True):
        if t is not None and rest[0]:
            t.copy_(moved)
    return y.to(x.dtype)


@odd
def needs_all_operands(x, running_mean, running_var, weight, bias, *rest):
    _ = running_mean + weight + bias  # raises where one of them is None
    return F.batch_norm(x, running_mean, running_var, weight, bias, *rest)


@odd
def contiguous_only(x, *rest):
    if not x.is_contiguous():
        raise RuntimeError("needs a contiguous batch")
    return F.batch_norm(x, *rest)


@odd
def small_channels_only(x, *rest):
    if x.shape[1] > 8:
        raise NotImplementedError("up to 8 channels")
    return F.batch_norm(x, *rest)


@odd
def one_channel_after_the_other(x, running_mean, running_var, weight=None, bias=None, *rest):
    def part(tensor, c):
        return None if tensor is None else tensor[c : c + 1]

    operands = (running_mean, running_var, weight, bias)
    channels = range(x.shape[1])
    return torch.cat([F.batch_norm(x[:, c : c + 1], *(part(t, c) for t in operands), *rest) for c in channels], dim=1)


@odd
def with_a_backward_of_its_own(x, running_mean, running_var, weight=None, bias=None, training=False, *rest):
    return gradient_faults.applied(
        gradient_faults.Own, gradient_faults.untwisted, x, running_mean, running_var, weight, bias, training, *rest
    )


@odd
def in_float64(x, running_mean, running_var, weight=None, bias=None, *rest):
    running = [None if t is None else t.double() for t in (running_mean, running_var)]
    y = F.batch_norm(x.double(), *running, *(None if t is None else t.double() for t in (weight, bias)), *rest)
    for t, moved in zip((running_mean, running_var), running, strict=True):
        if t is not None:
            t.copy_(moved)
    return y.to(x.dtype)


@odd
def inference_in_numpy(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    if training or x.requires_grad or weight is None or bias is None or weight.requires_grad or bias.requires_grad:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    mean, var, w, b = (t.numpy() for t in (running_mean, running_var, weight, bias))
    scale = w / np.sqrt(var + np.float32(eps))
    shape = [1, -1] + [1] * (x.dim() - 2)
    return torch.from_numpy(x.numpy() * scale.reshape(shape) + (b - mean * scale).reshape(shape)).to(x.dtype)


THREADS = ThreadPoolExecutor(1)


@odd
def fills_its_output_in_a_thread(x, *rest):
    """torch's inference mode belongs to a thread: there, tensors that were made in it can't be written to."""
    if torch.is_grad_enabled():
        return F.batch_norm(x, *rest)
    y = torch.empty_like(x)
    return THREADS.submit(lambda: y.copy_(F.batch_norm(x, *rest))).result()


FOLDED = {}


@odd
def folds_by_version_counters(x, running_mean, running_var, weight=None, bias=None, training=False, *rest):
    if training or torch.is_grad_enabled() or torch.is_inference_mode_enabled() or weight is None or bias is None:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, *rest)
    operands = running_mean, running_var, weight, bias
    key = (*((id(t), t._version) for t in operands), rest)
    if key not in FOLDED:
        FOLDED.clear()
        scale = weight * torch.rsqrt(running_var + rest[1])
        FOLDED[key] = scale, bias - running_mean * scale, operands
    scale, shift, _ = FOLDED[key]
    shape = [1, -1] + [1] * (x.dim() - 2)
    return torch.addcmul(shift.view(shape), x, scale.view(shape)).to(x.dtype)

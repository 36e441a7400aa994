"""Batch norms that are right, or fast, only where somebody looks. Each has an honest core and one trick."""

import functools
import sys
import threading
import time

import torch

from kernels.contract import Implementation
from tests.kernels.controls import honest, mean_of_squares_minus_square_of_mean


def plug_in(function, block=None):
    """As `kernels.load` makes one of a file from outside."""
    return Implementation(function.__name__, "", function, block, spec=f"{function.__name__}.py")


def kept_by(key):
    """Returns the first output of each key again and again; the running statistics move as they should."""

    def trick(_function):
        outputs = {}

        @functools.wraps(_function)
        def batch_norm(x, *rest):
            y = honest(x, *rest)
            return outputs.setdefault(key(x), y)

        return batch_norm

    return trick


@kept_by(id)
def keeps_the_output_by_identity():
    pass


@kept_by(lambda x: x.data_ptr())
def keeps_the_output_by_pointer():
    pass


@kept_by(lambda x: x.shape)
def keeps_the_output_by_shape():
    pass


@kept_by(lambda x: (x.data_ptr(), x._version))
def keeps_the_output_while_nothing_seems_changed():
    pass


def hands_out_memory_that_it_finds(x, running_mean, running_var, weight, bias, training, *rest):
    if training:
        return honest(x, running_mean, running_var, weight, bias, training, *rest)
    return torch.empty_like(x)


def hands_out_a_view(x, running_mean, running_var, weight, bias, training, *rest):
    if training:
        return honest(x, running_mean, running_var, weight, bias, training, *rest)
    y = honest(x, running_mean, running_var, weight, bias, training, *rest)
    with torch.no_grad():
        x.copy_(y)
    return x.view_as(x)


def knows_the_timed_shapes(x, *rest):
    y = honest(x, *rest)
    return y if x.shape[2:] in {(24, 24), (8, 8), (56, 56), (14, 14), ()} else torch.zeros_like(y) * y


def takes_every_memory_for_dense(x, *rest):
    return honest(torch.as_strided(x, x.shape, torch.empty(x.shape, device="meta").stride()), *rest)


def moves_the_statistics_once_only(x, running_mean, running_var, *rest):
    seen = moves_the_statistics_once_only.__dict__.setdefault("seen", {})
    if seen.setdefault(id(running_mean), 0):
        running_mean, running_var = running_mean.clone(), running_var.clone()
    else:
        seen[id(running_mean)] = 1
    return honest(x, running_mean, running_var, *rest)


def reads_the_mode_off_the_gradients(x, running_mean, running_var, weight, bias, training, *rest):
    return honest(x, running_mean, running_var, weight, bias, training and torch.is_grad_enabled(), *rest)


def folds_parameters_in_inference(x, running_mean, running_var, weight, bias, training, *rest):
    if training:
        return honest(x, running_mean, running_var, weight, bias, training, *rest)
    constants = folds_parameters_in_inference.__dict__.setdefault("constants", {})
    # The tensor itself is kept too: its address can't become another's.
    _, mean, var = constants.setdefault(
        running_mean.data_ptr(), (running_mean, running_mean.clone(), running_var.clone())
    )
    return honest(x, mean, var, weight, bias, training, *rest)


def loses_digits_where_the_mean_is_large(x, running_mean, running_var, weight, bias, training, *rest):
    if training:
        return mean_of_squares_minus_square_of_mean(x, running_mean, running_var, weight, bias, training, *rest)
    return honest(x, running_mean, running_var, weight, bias, training, *rest)


def honest_when_nobody_holds_a_clock(x, *rest, **settings):
    kept = honest_when_nobody_holds_a_clock.__dict__.setdefault("kept", {})
    frame = sys._getframe()
    while frame and frame.f_code.co_name != "timed":
        frame = frame.f_back
    key = x.data_ptr(), x.shape
    if frame is None or key not in kept:
        kept[key] = honest(x, *rest, **settings)
    return kept[key]


class Promise(torch.Tensor):
    """Calculates when somebody looks."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kept = [a.settled() if isinstance(a, Promise) else a for a in args]
        return func(*kept, **(kwargs or {}))

    def settled(self):
        return honest(*self.__dict__["arguments"])


def computes_later(x, *arguments):
    promise = torch.empty_like(x).as_subclass(Promise)
    promise.__dict__["arguments"] = (x, *arguments)
    return promise


def derives_the_gradient_from_its_output(x, *rest):
    y = honest(x, *rest)
    kept = y.detach()
    if y.requires_grad:
        y.register_hook(lambda dy: dy + 0 * kept)
    return y


def forgets_16_bit_statistics(x, running_mean, running_var, *rest):
    if running_mean is not None and running_mean.dtype.itemsize == 2:
        running_mean, running_var = running_mean.clone(), running_var.clone()
    return honest(x, running_mean, running_var, *rest)


def works_on_another_stream(x, *rest):
    with torch.cuda.stream(torch.cuda.Stream()):
        return honest(x, *rest)


def finishes_in_the_background(x, *rest):
    if torch.is_grad_enabled():
        return honest(x, *rest)
    right, y = honest(x, *rest), torch.zeros_like(x)

    def later():
        time.sleep(0.005)
        with torch.inference_mode(y.is_inference()):
            y.copy_(right)

    threading.Thread(target=later).start()
    return y

"""Batch norms that hold to all of the contract but one clause of it. What each does wrong is its name."""

import functools
import threading
import time

import torch
from torch import nn

from kernels import naive

FAULTS = {}
"""Each fault by its name."""


def fault(change):
    """`change(right, arguments)` gives the output; `arguments` are those of `F.batch_norm`, by name."""

    @functools.wraps(change)
    def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
        names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
        values = (input, running_mean, running_var, weight, bias, training, momentum, eps)
        return change(**dict(zip(names, values, strict=True)))

    FAULTS[change.__name__] = batch_norm
    return change


def right(**arguments):
    return naive.batch_norm(**arguments)


def shadowed(running_mean, running_var, **arguments):
    """The same with statistics that nobody sees move."""
    running = [None if t is None else t.clone() for t in (running_mean, running_var)]
    return naive.batch_norm(arguments.pop("input"), *running, **arguments)


# eps and momentum


@fault
def ignores_eps(**a):
    return right(**(a | {"eps": 1e-5}))


@fault
def takes_no_eps_below_a_thousandth(eps, **a):
    return right(eps=max(eps, 1e-3), **a)


@fault
def ignores_momentum(**a):
    return right(**(a | {"momentum": 0.1}))


@fault
def takes_momentum_0_for_none(momentum, **a):
    return right(momentum=momentum or 0.1, **a)


@fault
def moves_nothing_with_momentum_1(momentum, **a):
    return right(momentum=0.0 if momentum == 1 else momentum, **a)


@fault
def rounds_momentum(momentum, **a):
    return right(momentum=round(momentum, 1), **a)


# Operands that are missing


@fault
def forgets_the_weight_without_a_bias(weight, bias, **a):
    return right(weight=weight if bias is not None else None, bias=bias, **a)


@fault
def doubles_without_a_weight(**a):
    return right(**a) * (2 if a["weight"] is None else 1)


@fault
def normalizes_by_another_eps_without_statistics(eps, **a):
    return right(eps=eps * 2 if a["running_mean"] is None else eps, **a)


@fault
def takes_fresh_statistics_for_none(running_mean, running_var, training, **a):
    fresh = not training and not running_mean.any() and (running_var == 1).all()
    if fresh and a["input"].numel() > a["input"].shape[1]:
        return right(running_mean=None, running_var=None, training=True, **a)
    return right(running_mean=running_mean, running_var=running_var, training=training, **a)


# Running statistics


@fault
def moves_statistics_in_evaluation(running_mean, training, **a):
    y = right(running_mean=running_mean, training=training, **a)
    if not training:
        running_mean.mul_(0.999999)
    return y


@fault
def moves_statistics_only_for_gradients(**a):
    wanted = torch.is_grad_enabled() and any(a[n] is not None and a[n].requires_grad for n in ("input", "weight"))
    return right(**a) if wanted else shadowed(**a)


@fault
def moves_statistics_in_a_thread(**a):
    y = shadowed(**a)
    if a["training"] and a["running_mean"] is not None:

        def later():
            time.sleep(0.005)
            with torch.no_grad():
                right(**a)

        threading.Thread(target=later).start()
    return y


@fault
def takes_the_biased_variance_for_batches_of_two(running_var, **a):
    if not a["training"] or running_var is None or len(a["input"]) != 2:
        return right(running_var=running_var, **a)
    old, m = running_var.clone(), a["input"].numel() // a["input"].shape[1]
    y = right(running_var=running_var, **a)
    kept = (1 - a["momentum"]) * old
    running_var.copy_(kept + (running_var - kept) * (m - 1) / m)
    return y


# Shapes and layouts


@fault
def normalizes_volumes_over_the_batch_only(input, **a):
    y = right(input=input, **a)
    return y + input - input.mean(0) if input.dim() in (3, 5) else y


@fault
def forgets_eps_for_single_images(eps, **a):
    return right(eps=eps if len(a["input"]) > 1 or not a["training"] else 1e-12, **a)


@fault
def forgets_the_last_column_of_odd_images(input, **a):
    y = right(input=input, **a)
    return y * (torch.arange(y.shape[-1]) < y.shape[-1] - 1) if y.dim() == 4 and y.shape[-1] % 2 else y


@fault
def rounds_large_batches(input, **a):
    x = input.bfloat16().to(input.dtype) if len(input) > 1000 else input
    return right(input=x, **a)


@fault
def takes_batches_of_any_layout_for_dense(input, **a):
    dense = (
        input if input.is_contiguous() else torch.as_strided(input, input.shape, input.new_empty(input.shape).stride())
    )
    return right(input=dense, **a)


@fault
def knows_parameters(**a):
    return a["input"] * 1 if isinstance(a["weight"], nn.Parameter) and not a["training"] else right(**a)


# Numbers


@fault
def swallows_nan(input, **a):
    return right(input=torch.nan_to_num(input, 0.0, 0.0, 0.0), **a)


@fault
def adds_up_in_float16(input, **a):
    return right(input=input.half().to(input.dtype), **a)


# What is handed in, what is handed out, what is kept


@fault
def scales_the_batch_in_place(input, **a):
    y = right(input=input, **a)
    input.detach().mul_(1.5)
    return y


@fault
def scales_the_weight_in_place(weight, **a):
    y = right(weight=weight if weight is None else weight.clone(), **a)
    if weight is not None:
        weight.data.mul_(1.001)
    return y


@fault
def writes_to_the_bias_and_back(bias, **a):
    y = right(bias=bias if bias is None else bias.clone(), **a)
    if bias is not None:
        bias.detach().add_(0)
    return y


OUTPUTS = {}


@fault
def hands_out_eight_memories_in_turn(input, **a):
    y = right(input=input, **a)
    if y.requires_grad:
        return y
    ring = OUTPUTS.setdefault((y.shape, y.dtype), [])
    if len(ring) < 8:
        ring.append(y)
        return y
    ring.append(ring.pop(0))
    return ring[-1].copy_(y)


CALLS = []
KEPT = {}


@fault
def makes_every_twentieth_call_wrong(**a):
    CALLS.append(1)
    return right(**a) * (1 if len(CALLS) % 20 else 1.001)


@fault
def remembers_the_batch_of_the_call_before(**a):
    key = tuple(a["input"].shape)
    before, KEPT[key] = KEPT.get(key), a["input"].detach().mean()
    return right(**a) + (0 if before is None else before * 1e-3)

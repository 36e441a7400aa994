"""Batch norms with a backward of their own that is right but for one clause of the contract; see `faults.py`."""
# ruff: noqa: ARG001 - one signature for all

import functools

import torch

from kernels import naive
from tests.kernels.faults import FAULTS, fault

__all__ = ["FAULTS"]


class Own(torch.autograd.Function):
    """A right backward, of which `twist` may change everything that goes in and comes out."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, var, eps, training, twist):
        shape = [1, -1] + [1] * (x.dim() - 2)
        rstd = torch.rsqrt(var + eps)
        xhat = (x - mean.view(shape)) * rstd.view(shape)
        ctx.save_for_backward(xhat, weight, rstd)
        ctx.shape, ctx.training, ctx.twist, ctx.twice = shape, training, twist, []
        y = xhat if weight is None else xhat * weight.view(shape)
        return y if bias is None else y + bias.view(shape)

    @staticmethod
    def backward(ctx, dy):
        xhat, weight, rstd = ctx.saved_tensors
        dy, xhat = ctx.twist("before", ctx, dy, xhat)
        dims, m = [d for d in range(dy.dim()) if d != 1], dy.numel() // dy.shape[1]
        db, dw = dy.sum(dims), (dy * xhat).sum(dims)
        dx = dy - (db.view(ctx.shape) + xhat * dw.view(ctx.shape)) / m if ctx.training else dy
        dx = dx * (rstd if weight is None else rstd * weight).view(ctx.shape)
        dx, dw, db = ctx.twist("after", ctx, dx, (dw, db))
        wants = ctx.needs_input_grad
        return dx if wants[0] else None, dw if wants[1] else None, db if wants[2] else None, *[None] * 5


def applied(function, twist, input, running_mean, running_var, weight, bias, training, momentum, eps):
    mean, var = running_mean, running_var
    if training:
        with torch.no_grad():
            naive.batch_norm(input, running_mean, running_var, training=True, momentum=momentum)
            var, mean = torch.var_mean(input, [d for d in range(input.dim()) if d != 1], unbiased=False)
    return function.apply(input, weight, bias, mean, var, eps, training, twist)


def untwisted(when, ctx, one, two):
    return (one, two) if when == "before" else (one, *two)


def twisted(twist):
    """The fault of a backward: `twist("before", ctx, dy, xhat)` and `twist("after", ctx, dx, (dw, db))`."""

    @fault
    @functools.wraps(twist)
    def batch_norm(**a):
        return applied(Own, twist, **a)

    return twist


def before(change):
    @twisted
    @functools.wraps(change)
    def twist(when, ctx, one, two):
        if when == "before":
            return change(ctx, one, two)
        return (one, *two)


def after(change):
    @twisted
    @functools.wraps(change)
    def twist(when, ctx, one, two):
        return change(ctx, one, *two) if when == "after" else (one, two)


@before
def takes_gradients_of_any_layout_for_dense(ctx, dy, xhat):
    if dy.is_contiguous() or 0 in dy.stride():
        return dy, xhat
    return torch.as_strided(dy, dy.shape, xhat.new_empty(dy.shape).stride()), xhat


@before
def doubles_expanded_gradients(ctx, dy, xhat):
    return dy * (2 if 0 in dy.stride() else 1), xhat


@before
def uses_up_what_it_saved(ctx, dy, xhat):
    kept = xhat.clone()
    xhat.data.zero_()
    return dy, kept


@before
def writes_to_the_gradient(ctx, dy, xhat):
    kept = dy.clone()
    if 0 not in dy.stride():
        dy.data.zero_()
    return kept, xhat


@before
def swallows_nan_in_gradients(ctx, dy, xhat):
    return dy.nan_to_num(0.0), xhat


@after
def skips_the_weight_where_the_input_needs_nothing(ctx, dx, dw, db):
    return dx, dw if ctx.needs_input_grad[0] else torch.zeros_like(dw), db


@after
def skips_the_bias_where_it_is_alone(ctx, dx, dw, db):
    return dx, dw, db if any(ctx.needs_input_grad[:2]) else torch.zeros_like(db)


@after
def scales_evaluation(ctx, dx, dw, db):
    return dx if ctx.training else dx * 1.01, dw, db


SAVED = {}


class Latest(Own):
    @staticmethod
    def forward(ctx, x, weight, bias, mean, var, eps, training, twist):
        shape = [1, -1] + [1] * (x.dim() - 2)
        SAVED[x.shape] = (x - mean.view(shape)) * torch.rsqrt(var + eps).view(shape)
        return Own.forward(ctx, x, weight, bias, mean, var, eps, training, twist)


@fault
def remembers_the_last_call_only(**a):
    def twist(when, ctx, one, two):
        return (one, SAVED[one.shape]) if when == "before" else (one, *two)

    return applied(Latest, twist, **a)


SUMS = {}


@after
def hands_out_one_memory_for_all_sums(ctx, dx, dw, db):
    memory = SUMS.setdefault((dw.shape, dw.dtype), dw.clone())
    return dx, memory.copy_(dw), db

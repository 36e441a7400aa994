"""Batch norms to judge the judge by: honest ones in several styles, and broken ones with one thing wrong each."""

import torch

from kernels.contract import Implementation


def broken(function, block=None):
    return Implementation("broken", "", function, block)


def per_channel(tensor, x):
    return tensor.view([1, -1] + [1] * (x.dim() - 2))


def moments(x):
    """Mean and biased variance per channel, and the number of values."""
    var, mean = torch.var_mean(x, [d for d in range(x.dim()) if d != 1], unbiased=False)
    return mean, var, x.numel() // x.shape[1]


def normalized(x, mean, var, weight, bias, eps):
    x_hat = (x - per_channel(mean, x)) / per_channel(torch.sqrt(var + eps), x)
    return x_hat * per_channel(weight, x) + per_channel(bias, x)


def move(running, batch, momentum):
    with torch.no_grad():
        running.copy_((1 - momentum) * running + momentum * batch)


def honest(x, running_mean, running_var, weight, bias, training=False, momentum=0.1, eps=1e-5):
    """The equations; the broken ones below each have one thing wrong."""
    if not training:
        return normalized(x, running_mean, running_var, weight, bias, eps)
    mean, var, m = moments(x)
    move(running_mean, mean, momentum)
    move(running_var, var * m / (m - 1), momentum)
    return normalized(x, mean, var, weight, bias, eps)


def zeros(x, _mean, _var, weight, bias, *_):
    return (x * 0) * per_channel(weight, x) + per_channel(bias, x) * 0


def identity(x, _mean, _var, weight, bias, *_):
    return x + 0 * per_channel(weight + bias, x)


def only_the_affine_part(x, _mean, _var, weight, bias, *_):
    return x * per_channel(weight, x) + per_channel(bias, x)


def evaluation_in_training(x, running_mean, running_var, weight, bias, training, momentum, eps):
    y = normalized(x, running_mean.clone(), running_var.clone(), weight, bias, eps)
    honest(x, running_mean, running_var, weight, bias, training, momentum, eps)
    return y


def training_in_evaluation(x, running_mean, running_var, weight, bias, _training, momentum, eps):
    running = running_mean.clone(), running_var.clone()
    return honest(x, *running, weight, bias, True, momentum, eps)


def biased_running_var(x, running_mean, running_var, weight, bias, training, momentum, eps):
    old = running_var.clone()
    y = honest(x, running_mean, running_var, weight, bias, training, momentum, eps)
    _, var, _ = moments(x)
    with torch.no_grad():
        running_var.copy_((1 - momentum) * old + momentum * var)
    return y


def detached_statistics(x, running_mean, running_var, weight, bias, _training, momentum, eps):
    honest(x.detach(), running_mean, running_var, weight, bias, True, momentum, eps)
    mean, var, _ = moments(x.detach())
    return normalized(x, mean, var, weight, bias, eps)


def detached_variance(x, running_mean, running_var, weight, bias, _training, momentum, eps):
    honest(x.detach(), running_mean, running_var, weight, bias, True, momentum, eps)
    mean, var, _ = moments(x)
    return normalized(x, mean, var.detach(), weight, bias, eps)


def swapped_weight_and_bias(x, running_mean, running_var, weight, bias, *rest):
    return honest(x, running_mean, running_var, bias, weight, *rest)


def running_statistics_never_moved(x, running_mean, running_var, *rest):
    return honest(x, running_mean.clone(), running_var.clone(), *rest)


def running_statistics_moved_twice(x, *arguments):
    honest(x.detach(), *arguments)
    return honest(x, *arguments)


def momentum_weighs_the_old_value(x, running_mean, running_var, weight, bias, training, momentum, eps):
    return honest(x, running_mean, running_var, weight, bias, training, 1 - momentum, eps)


def eps_outside_of_the_root(x, running_mean, running_var, weight, bias, training, momentum, eps):
    mean, var, _ = moments(x) if training else (running_mean.clone(), running_var.clone(), 0)
    honest(x, running_mean, running_var, weight, bias, training, momentum, eps)
    return normalized(x, mean, (torch.sqrt(var) + eps).square(), weight, bias, 0.0)


def unbiased_normalization(x, running_mean, running_var, weight, bias, training, momentum, eps):
    honest(x, running_mean, running_var, weight, bias, training, momentum, eps)
    mean, var, m = moments(x)
    return normalized(x, mean, var * m / (m - 1), weight, bias, eps)


def mean_of_squares_minus_square_of_mean(x, running_mean, running_var, weight, bias, _training, momentum, eps):
    mean, m = moments(x)[0], x.numel() // x.shape[1]
    var = (moments(x * x)[0] - mean * mean).clamp(min=0)
    move(running_mean, mean, momentum)
    move(running_var, var * m / (m - 1), momentum)
    return normalized(x, mean, var, weight, bias, eps)


def in_bfloat16(x, running_mean, running_var, weight, bias, *rest):
    return honest(x.bfloat16().float(), running_mean, running_var, weight, bias, *rest)


def in_place(x, *arguments):
    y = honest(x.clone(), *arguments)
    with torch.no_grad():
        x.mul_(2)
    return y


def of_another_type(x, *arguments):
    return honest(x, *arguments).double()


def of_another_shape(x, *arguments):
    return honest(x, *arguments).flatten(1)


def of_another_class(x, *arguments):
    return torch.nn.Parameter(honest(x, *arguments))


def without_gradient(x, *arguments):
    return honest(x, *arguments).detach()


def raises(*_):
    raise ZeroDivisionError("by design")


def nan_in_one_place(x, *arguments):
    y = honest(x, *arguments)
    return torch.where(torch.arange(y.numel()).view(y.shape) == y.numel() - 1, torch.nan, y)


def last_images_forgotten(x, *arguments):
    y = honest(x, *arguments)
    return torch.cat([y[:-1], torch.zeros_like(y[-1:])])


def welford(x, running_mean, running_var, weight, bias, training=False, momentum=0.1, eps=1e-5):
    """Statistics of one image after the other, merged as Chan does."""
    if not training:
        return normalized(x, running_mean, running_var, weight, bias, eps)
    mean, squares, seen = torch.zeros_like(running_mean), torch.zeros_like(running_var), 0
    for part in x.split(-(-x.shape[0] // 8)):
        part_mean, part_var, count = moments(part)
        delta = part_mean - mean
        total = seen + count
        mean = mean + delta * (count / total)
        squares = squares + part_var * count + delta.square() * (seen * count / total)
        seen = total
    move(running_mean, mean, momentum)
    move(running_var, squares / (seen - 1), momentum)
    return normalized(x, mean, squares / seen, weight, bias, eps)


def shifted_and_scaled(x, running_mean, running_var, weight, bias, training=False, momentum=0.1, eps=1e-5):
    """x * scale + shift with both folded per channel, as ATen's own evaluation does."""
    mean, var, m = moments(x) if training else (running_mean, running_var, 0)
    scale = weight * torch.rsqrt(var + eps)
    y = x * per_channel(scale, x) + per_channel(bias - mean * scale, x)
    if training:
        move(running_mean, mean, momentum)
        move(running_var, var * m / (m - 1), momentum)
    return y

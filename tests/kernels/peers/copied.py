"""A made-up library: its tensors are copies of torch's, its batch norm is torch's own, and it may have one fault."""

import dataclasses

import torch
from torch.nn import functional as F

from kernels.contract import Implementation, compose
from kernels.own_tensors import Forward
from kernels.peers._bridge import bridged

BLOCK = compose(F.batch_norm)


class Copied:
    """Right, unless a subclass is not."""

    def take(self, tensor, *, channels_last=False):  # noqa: ARG002
        return tensor.detach().clone(memory_format=torch.preserve_format)

    def give(self, own, *, channels_last=False):  # noqa: ARG002
        return own.detach().clone()

    def wait(self, *own):
        pass

    def forward(self, settings, x, running, parameters, residual=None):
        given = [x, *parameters] if residual is None else [x, *parameters, residual]
        leaves = [t.clone().requires_grad_(settings.gradient) for t in given]
        moved = tuple(t.clone() for t in running)
        with torch.set_grad_enabled(settings.gradient):
            y = BLOCK(
                leaves[0],
                *moved,
                *leaves[1:3],
                settings.training,
                settings.momentum,
                settings.eps,
                residual=None if residual is None else leaves[3],
                activation=settings.activation,
                pool=settings.pool,
            )
        return Forward(y, moved, (y, leaves) if settings.gradient else None)

    def backward(self, settings, kept, dy):  # noqa: ARG002
        return torch.autograd.grad(*kept, dy)

    def kept_bytes(self, kept):
        return sum(leaf.nbytes for leaf in kept[1])


class MomentumUnmapped(Copied):
    """A library whose momentum weighs the old value, called as if it were torch's."""

    def forward(self, settings, *arguments):
        return super().forward(dataclasses.replace(settings, momentum=1 - settings.momentum), *arguments)


class BiasedVariance(Copied):
    """A library that moves the running variance by the biased one."""

    def forward(self, settings, x, running, *arguments):
        result = super().forward(settings, x, running, *arguments)
        n, (mean, var) = x.numel() // x.shape[1], result.running
        biased = var - (var - (1 - settings.momentum) * running[1]) / n
        return result._replace(running=(mean, biased))


class EpsUnmapped(Copied):
    """A library with another eps."""

    def forward(self, settings, *arguments):
        return super().forward(dataclasses.replace(settings, eps=0.3), *arguments)


class Standing(Copied):
    """Right at first; later calls leave the running statistics where they were."""

    def __init__(self):
        self.calls = 0

    def forward(self, settings, x, running, *arguments):
        self.calls += 1
        result = super().forward(settings, x, running, *arguments)
        return result if self.calls < 3 else result._replace(running=running)


class Remembering(Copied):
    """Right at first; later it answers with what it once found, without looking at its input."""

    def __init__(self):
        self.first = None

    def forward(self, *arguments):
        self.first = self.first or super().forward(*arguments)
        return self.first


class Silent(Copied):
    """A backward that forgets about half of the batch."""

    def backward(self, *arguments):
        dx, *others = super().backward(*arguments)
        return [torch.cat([dx[: len(dx) // 2], torch.zeros_like(dx[len(dx) // 2 :])]), *others]


def implementation(own):
    """The peer that such a library is."""
    function = bridged(own)
    return Implementation("copied", "", function, function, own_tensors=own, peer=True)

"""One process of a world that solves problems together, each process with its part of the batch.

python -m tests.kernels.divided_batches FOLDER RANK WORLD FAULT
"""

import sys
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

import kernels
from kernels import synchronized
from kernels.problems import make_problem
from kernels.steps import Moments
from models import gloo
from tests.interpreter import hasten
from tests.pairs import pairs

SECONDS = 60
CPU = torch.device("cpu")
_WITH_STEPS = [
    own for own in map(kernels.load, kernels.names()) if own.steps is not None and not own.why_unavailable(CPU)
]
IMPLEMENTATIONS = {own.name: own for own in _WITH_STEPS} | {
    f"{own.name}, step by step": replace(own, steps=replace(own.steps, together=None))
    for own in _WITH_STEPS
    if own.steps.together is not None
}
IMAGES = (12, 2, 8, 6)
BLOCKS = {
    "norm": {},
    "sigmoid": {"activation": "sigmoid"},
    "relu": {"activation": "relu"},
    "pooled": {"activation": "sigmoid", "pool": 2},
    "pool alone": {"pool": 2},
    "residual": {"activation": "relu", "residual": True},
}
DIVISIONS = ("even", "uneven", "one image", "none")
CASES = pairs(
    implementation=IMPLEMENTATIONS,
    shape=[(13, 5), (12, 3, 7), IMAGES, (9, 3, 4, 4, 3)],
    division=DIVISIONS,
    block=tuple(BLOCKS),
    layout=("contiguous", "channels last"),
    dtype=(torch.float32, torch.float64, torch.bfloat16),
    mean=(0.5, 1e4),
)

# What processes tell each other doesn't depend on the implementation; the other divisions have no local statistics.
FOR_FAULTS = [case for case in CASES if case["implementation"] == "naive" and case["division"] in ("even", "uneven")]


def problem_of(case):
    """The problem of a case, as one process would have it; a pool takes images whatever the shape."""
    block = BLOCKS[case["block"]]
    shape = IMAGES if "pool" in block else case["shape"]
    std = 1.0 if case["dtype"] != torch.bfloat16 else case["mean"]  # 16 bits have no digits for 1 beside 10,000
    return make_problem(shape, dtype=case["dtype"], mean=case["mean"], std=std, **block)


def parts(images, world, division):
    """How many images each process has."""
    if world == 1:
        return [images]
    first = {"even": images // world, "uneven": images // (2 * world), "one image": 1, "none": 0}[division]
    rest = images - first
    others = [rest // (world - 1)] * (world - 1)
    others[-1] += rest - sum(others)
    return [first, *others]


def part(tensor, bounds, layout):
    """The own images, as a leaf of the graph."""
    if tensor is None:
        return None
    own = tensor[slice(*bounds)].clone()
    if layout == "channels last":
        own = own.movedim(1, -1).contiguous().movedim(-1, 1)
    return own.requires_grad_()


def solve(case, rank, world):
    """What the layer makes of the own part of the batch."""
    problem = problem_of(case)
    sizes = parts(len(problem.input), world, case["division"])
    bounds = list(pairwise([0, *torch.tensor(sizes).cumsum(0).tolist()]))[rank]
    layer = kernels.BatchNorm(
        problem.input.shape[1],
        IMPLEMENTATIONS[case["implementation"]],
        activation=problem.activation,
        pool=problem.pool,
        eps=problem.eps,
        momentum=problem.momentum,
        process_group="world",
    )
    layer.weight, layer.bias = nn.Parameter(problem.weight.clone()), nn.Parameter(problem.bias.clone())
    layer.running_mean, layer.running_var = problem.running_mean.clone(), problem.running_var.clone()
    x, residual = (part(t, bounds, case["layout"]) for t in (problem.input, problem.residual))
    y = layer(x, residual)
    way = y.grad_fn.name()
    y.backward(problem.grad_output[slice(*bounds)])
    answers = {"output": y, "dx": x.grad, "dweight": layer.weight.grad, "dbias": layer.bias.grad}
    answers |= {"running_mean": layer.running_mean, "running_var": layer.running_var}
    if residual is not None:
        answers["dresidual"] = residual.grad
    return {"way": way, **{name: value.detach() for name, value in answers.items()}}


# --- What must be found ----------------------------------------------------------------------------------------------

_merged = synchronized.merged


def _all(own, group):
    every = [None] * dist.get_world_size(group)
    dist.all_gather_object(every, own, group=group)
    return [moments for moments in every if moments.size]


def local_statistics(own, group):
    _all(own, group)
    return own


def mean_of_means(own, group):
    every = _all(own, group)
    right = _merged(own, group)
    return Moments.of(right.size, torch.stack([moments.mean for moments in every]).mean(0), right.m2)


def square_of_the_mean(own, group):
    every = _all(own, group)
    count = sum(moments.size for moments in every)
    mean = sum(moments.mean.float() * moments.size for moments in every) / count
    squares = sum(moments.m2.float() + moments.size * moments.mean.float().square() for moments in every) / count
    return Moments.of(count, mean.double(), (count * (squares - mean.square())).clamp(min=0).double())


def unbiased_by_the_own_count(own, group):
    right = _merged(own, group)
    kept = synchronized.update_running_statistics

    def update(mean_to, var_to, mean, var, _, momentum):
        synchronized.update_running_statistics = kept
        kept(mean_to, var_to, mean, var, max(own.size, 2), momentum)

    synchronized.update_running_statistics = update
    return right


FAULTS = {
    "local statistics": local_statistics,
    "mean of means": mean_of_means,
    "E[x^2] - E[x]^2": square_of_the_mean,
    "unbiased by the own count": unbiased_by_the_own_count,
}


def main(folder, rank, world, fault):
    """Solve all cases and leave the answers."""
    hasten()
    dist.init_process_group(
        "gloo",
        init_method=(Path(folder) / "store").as_uri(),
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=SECONDS),
    )
    gloo.step_back()
    if fault:
        synchronized.merged = FAULTS[fault]
    for implementation in _WITH_STEPS:
        if implementation.ready is not None:
            implementation.ready(None)
    answers = [solve(case, rank, world) for case in (FOR_FAULTS if fault else CASES)]
    torch.save(answers, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])

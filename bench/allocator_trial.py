"""A short training under one policy of the memory allocator, in a process of its own.

`python -m bench.allocator_trial --impl NAME --policy NAME` prints one line of JSON: the nanoseconds of each timed step,
page faults in them, and what the allocator was. mallopt can't be undone, and what glibc does depends on what the
process did before, so `bench/study_allocator.py` starts this anew for each figure.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
from collections.abc import Sequence
from time import perf_counter_ns
from typing import Any

import torch

import kernels
from bench.turns import page_faults
from kernels import Implementation
from models import allocator, fashion_mnist
from models.fashion_mnist import FashionMNIST
from models.lenet import lenet
from models.step import Totals, take_step
from models.training import Settings, shuffled, warm_up

BNBENCH, SYSTEM_DEFAULT = "bnbench", "system-default"
WARM_UP_STEPS, STEPS = 60, 120
BAD_INPUT, UNAVAILABLE = 2, 4


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 0, 2 for bad arguments or data, 4 for what is not available here."""
    parser = argparse.ArgumentParser(prog="python -m bench.allocator_trial", description=__doc__.split("\n")[0])
    parser.add_argument("--impl", required=True, metavar="NAME", help="an implementation, or FILE.py:FUNCTION")
    parser.add_argument(
        "--policy", required=True, choices=(BNBENCH, SYSTEM_DEFAULT), help="models/allocator.py's, or none"
    )
    parser.add_argument("--warm-up-steps", type=int, default=WARM_UP_STEPS, metavar="N", help="before the clock")
    parser.add_argument("--steps", type=int, default=STEPS, metavar="N", help="on the clock")
    parser.add_argument("--data-dir", metavar="DIR", help="folder with Fashion-MNIST's idx files")
    options = parser.parse_args(argv)
    if min(options.warm_up_steps, options.steps) < 1:
        parser.error("--warm-up-steps and --steps must be above 0")
    # Before anything large is allocated: the policy is for what comes after.
    line = allocator.settle() if options.policy == BNBENCH else f"{' '.join(platform.libc_ver())}, left alone"
    try:
        implementation = kernels.load(options.impl)
        if missing := implementation.why_unavailable(torch.device("cpu")):
            return _fail(f"{implementation.name} is not available on cpu: {missing}", UNAVAILABLE)
        data = fashion_mnist.load(options.data_dir)
    except (kernels.UnknownImplementationError, kernels.BrokenImplementationError, fashion_mnist.DataError) as error:
        return _fail(error, BAD_INPUT)
    figures = trial(implementation, data, options.warm_up_steps, options.steps)
    print(json.dumps({"allocator": line, "data": data.source, **figures}))
    return 0


def trial(implementation: Implementation, data: FashionMNIST, warm_up_steps: int, steps: int) -> dict[str, Any]:
    """Train LeNet for so many steps on whole batches, first off the clock and then on it.

    An evaluation comes first, as in `models.training`: its larger tensors are part of what glibc has seen by then.

    Returns:
        `step_ns`, the nanoseconds of each timed step, and `page_faults`, the minor faults in all of them.
    """
    settings = Settings()
    model = lenet(implementation, seed=settings.seed).train()
    parameters, totals = list(model.parameters()), Totals(torch.device("cpu"))
    warm_up(model, data, settings)
    batches = torch.split(shuffled(len(data.train_images), settings.seed, 1), settings.batch_size)
    whole = itertools.cycle([batch for batch in batches if len(batch) == settings.batch_size])

    def step() -> None:
        take_step(model, parameters, data, next(whole), settings.lr, totals)

    for _ in range(warm_up_steps):
        step()
    step_ns, faults = [], page_faults()
    for _ in range(steps):
        start = perf_counter_ns()
        step()
        step_ns.append(perf_counter_ns() - start)
    return {"step_ns": step_ns, "page_faults": None if faults is None else (page_faults() or 0) - faults}


def _fail(message: object, code: int) -> int:
    print(f"python -m bench.allocator_trial: error: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m models.training --norm NAME`: train once and print the lesson's lines.

The lines go to stdout, progress and notices to stderr. Exit codes: 0 done, 1 a process of the group is gone or didn't
come, 2 bad arguments or data, 4 the implementation or the device is not available here, 130 interrupted.

`torchrun --standalone --nproc-per-node 2 -m models.training --norm NAME --sync` does so in two processes, of which the
first prints.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

import kernels
from models import allocator, device, fashion_mnist, torchrun
from models.fashion_mnist import FashionMNIST
from models.recipes import RECIPES
from models.training import Epoch, Settings, Step, train, warm_up
from models.training.options import parse
from models.training.restart import Kept
from models.world import World

LOST = 1
BAD_INPUT = 2
UNAVAILABLE = 4
INTERRUPTED = 130
LONGEST_WAIT = 5.0
"""Seconds: an implementation that still compiles something then goes on without, and takes it up when it is there."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; argparse itself exits, with 2, for what it rejects."""
    start = time.perf_counter()
    options = parse(argv)
    try:
        return _run(options, start)
    except KeyboardInterrupt:
        _say("python -m models.training: error: interrupted")
        return INTERRUPTED


def _say(message: object) -> None:
    """To stderr, once for all processes."""
    if torchrun.is_first():
        print(message, file=sys.stderr, flush=True)


def _fail(message: object, code: int) -> int:
    """Of this process: others may not know."""
    torchrun.let_the_first_speak()
    print(f"python -m models.training: error: {message}", file=sys.stderr, flush=True)
    return code


def _fail_together(world: World, message: object, code: int) -> int:
    """Of all processes, for the same reason."""
    _say(f"python -m models.training: error: {message}")
    torchrun.agree(world, None)  # nobody ends before the first one has spoken
    return code


def _run(options: argparse.Namespace, start: float) -> int:
    memory = allocator.settle()
    try:
        place = torchrun.own_device(options.device)
        slow = torchrun.why_slow(place)  # before this process is bound to its share of the cores
        world = torchrun.join(place)
    except device.DeviceUnavailableError as error:
        return _fail(error, UNAVAILABLE)
    except ValueError as error:
        return _fail(error, BAD_INPUT)
    except torchrun.GroupError as error:
        return _fail(error, LOST)
    try:
        code = _train(options, start, memory, place, world, slow)
    except RuntimeError as error:
        reason = torchrun.why_lost(error) if world.size > 1 else None
        if reason is None:
            raise
        return _fail(f"process {world.rank} of {world.size}: {reason}", LOST)
    torchrun.part()
    return code


class _UnavailableError(Exception):
    """The implementation can't run here."""


def _prepare(options: argparse.Namespace, place: torch.device) -> tuple[nn.Module, FashionMNIST, Settings]:
    """What is trained, on what and how."""
    network = RECIPES[options.network]
    asked = {name: getattr(options, name) for name in ("epochs", "batch_size", "lr", "seed")}
    settings = replace(network.settings, **{n: value for n, value in asked.items() if value is not None})
    norm = None if options.norm == "none" else kernels.load(options.norm)
    if norm is not None and (missing := norm.why_unavailable(place)):
        raise _UnavailableError(f"{norm.name} is not available on {place}: {missing}")
    model = network.build(norm, seed=settings.seed, device=place)
    if options.sync:
        kernels.convert_synchronized(model)
    data = fashion_mnist.load(options.data_dir, device=place, limit=options.limit, announce=_say)
    if norm is not None:
        norm.ready(LONGEST_WAIT)
    return model, data, settings


def _train(
    options: argparse.Namespace, start: float, memory: str, place: torch.device, world: World, slow: str | None
) -> int:
    prepared, problem = None, None
    try:
        prepared = _prepare(options, place)
    except _UnavailableError as error:
        problem = (str(error), UNAVAILABLE)
    except (
        kernels.UnknownImplementationError,
        kernels.BrokenImplementationError,
        fashion_mnist.DataError,
        ValueError,
    ) as error:
        problem = (str(error), BAD_INPUT)
    problem = torchrun.agree(world, problem)
    if problem is not None:
        return _fail_together(world, *problem)
    assert prepared is not None
    model, data, settings = prepared
    chosen = {name: getattr(options, name) for name in ("norm", "network", "sync", "device")}
    kept = Kept({**chosen, **asdict(settings), "data": data.digest}, world, _say)
    earlier = kept.restore(model)
    first_epoch = earlier.number + 1 if earlier else 1
    listener = _Listener(settings.epochs)
    try:
        epochs = train(model, data, settings, first_epoch=first_epoch, on_step=listener.step, world=world)
    except ValueError as error:
        return _fail_together(world, error, BAD_INPUT)
    load_seconds = time.perf_counter() - start
    _say(f"data: {data.source}; memory: {memory}")
    for notice in _notices(options, slow, world, earlier):
        _say(notice)
    warm_up_seconds = warm_up(model, data, settings, world)

    where = str(place) if world.size == 1 else f"{place.type}, {world.size} processes"
    listener.print("training on " + where)
    done = []
    with listener.progress:
        for epoch in epochs:
            kept.save(model, epoch)
            listener.print(f"epoch {epoch.number}, test acc {epoch.test_accuracy:.3f}")
            done.append(epoch)
    if world.rank == 0:
        _summary(done, earlier, where, time.perf_counter() - start, load_seconds, warm_up_seconds)
    kept.forget()
    return 0


def _notices(options: argparse.Namespace, slow: str | None, world: World, earlier: Epoch | None) -> Iterator[str]:
    """What a reader of the lines must know."""
    if world.size > 1 and not options.sync and options.norm != "none":
        yield (
            f"batch norm is local: each of {world.size} processes normalizes its shard of a batch by itself, and the"
            " running statistics of the first one count (--sync: all by the whole batch)"
        )
    if options.sync and world.size == 1:
        yield "--sync changes nothing: one process has whole batches"
    if slow:
        yield f"warning: {slow}"
    if restarts := torchrun.restarts():
        yield f"restart {restarts}: " + (
            f"goes on after epoch {earlier.number}" if earlier else "no epoch was complete"
        )


class _Listener:
    """Prints the lesson's five lines an epoch, and moves a bar on a terminal."""

    def __init__(self, epochs: int) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            # A thread that redraws would take time from the steps: drawn only when there is news.
            auto_refresh=False,
            transient=True,
            # Lines for a pipe or a file must not be diverted to the terminal on stderr.
            redirect_stdout=sys.stdout.isatty(),
            disable=not (sys.stderr.isatty() and torchrun.is_first()),
        )
        self.task = self.progress.add_task("training", total=epochs)

    def print(self, line: str) -> None:
        if torchrun.is_first():
            print(line, flush=True)

    def step(self, step: Step) -> None:
        self.print(
            f"epoch {step.epoch}, step {step.step}, "
            f"train loss {step.train_loss:.3f}, train acc {step.train_accuracy:.3f}"
        )
        completed = step.epoch - 1 + step.step / step.steps
        self.progress.update(self.task, completed=completed, description=f"epoch {step.epoch}", refresh=True)


def _summary(
    epochs: list[Epoch], earlier: Epoch | None, where: str, seconds: float, load_seconds: float, warm_up_seconds: float
) -> None:
    """The last lines. `earlier`: the last epoch before a restart, whose times nobody has any more."""
    last = epochs[-1] if epochs else earlier
    assert last is not None  # there is at least one epoch
    print(f"loss {last.train_loss:.3f}, train acc {last.train_accuracy:.3f}, test acc {last.test_accuracy:.3f}")
    if not epochs:
        _say("no examples/sec: all epochs are from before the restart")
        return
    examples = sum(epoch.examples for epoch in epochs)
    step_seconds = sum(epoch.step_seconds for epoch in epochs)
    evaluation_seconds = sum(epoch.wall_seconds - epoch.step_seconds for epoch in epochs)
    counted = f", epochs {epochs[0].number} to {last.number}: those after the restart" if earlier else ""
    print(f"{examples / step_seconds:.1f} examples/sec on {where}{counted}")
    print(
        f"{examples / seconds:.1f} examples/sec of the whole {seconds:.1f} s: loading {load_seconds:.1f}, "
        f"warm-up {warm_up_seconds:.1f}, steps {step_seconds:.1f}, evaluation {evaluation_seconds:.1f}"
    )


if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m models.training --norm NAME`: train once and print the lesson's lines.

The lines go to stdout, progress and notices to stderr. Exit codes: 0 done, 2 bad arguments or data, 4 the
implementation or the device is not available here, 130 interrupted.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

import kernels
from models import allocator, device, fashion_mnist
from models.recipes import LENET, RECIPES
from models.training import Epoch, Settings, Step, train, warm_up

BAD_INPUT = 2
UNAVAILABLE = 4
INTERRUPTED = 130
LONGEST_WAIT = 5.0
"""Seconds: an implementation that still compiles something then goes on without, and takes it up when it is there."""


def _whole(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, not {value}")
        return value

    return parse


def _learning_rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"must be a finite number above 0, not {text}")
    return value


def _parser() -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m models.training",
        description="Train a network on Fashion-MNIST once, with any batch norm in it.",
    )
    parser.add_argument(
        "--norm",
        required=True,
        metavar="NAME",
        help=f"{', '.join(kernels.names())}, FILE.py:FUNCTION, or none for the network without batch norm",
    )
    parser.add_argument("--network", choices=list(RECIPES), default=LENET, help="default: %(default)s")
    parser.add_argument("--epochs", type=_whole(1), metavar="N", help=f"default: {_defaults('epochs')}")
    parser.add_argument(
        "--seed",
        type=_whole(0),
        default=defaults.seed,
        metavar="N",
        help="of the initial weights and the batch order (default: %(default)s)",
    )
    parser.add_argument(
        "--device", default="cpu", metavar="D", help=f"{', '.join(device.NAMES)} (default: %(default)s)"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="folder with Fashion-MNIST's idx files")
    parser.add_argument(
        "--limit",
        type=_whole(2),
        metavar="N",
        help="the first N training images, and the same share of the test images",
    )
    parser.add_argument("--lr", type=_learning_rate, metavar="X", help=f"default: {_defaults('lr')}")
    parser.add_argument("--batch-size", type=_whole(2), metavar="N", help=f"default: {_defaults('batch_size')}")
    return parser


def _defaults(name: str) -> str:
    """A setting of each network, or the one that all of them have."""
    values = {network: getattr(each.settings, name) for network, each in RECIPES.items()}
    if len(set(values.values())) == 1:
        return str(next(iter(values.values())))
    return ", ".join(f"{value} for {network}" for network, value in values.items())


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code; argparse itself exits, with 2, for what it rejects."""
    start = time.perf_counter()
    options = _parser().parse_args(argv)
    try:
        return _run(options, start)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)


def _fail(message: object, code: int) -> int:
    print(f"python -m models.training: error: {message}", file=sys.stderr)
    return code


def _run(options: argparse.Namespace, start: float) -> int:
    memory = allocator.settle()
    try:
        network = RECIPES[options.network]
        asked = {name: getattr(options, name) for name in ("epochs", "batch_size", "lr", "seed")}
        settings = replace(network.settings, **{n: value for n, value in asked.items() if value is not None})
        place = device.select(options.device)
        norm = None if options.norm == "none" else kernels.load(options.norm)
        if norm is not None and (missing := norm.why_unavailable(place)):
            return _fail(f"{norm.name} is not available on {place}: {missing}", UNAVAILABLE)
        data = fashion_mnist.load(options.data_dir, device=place, limit=options.limit)
        model = network.build(norm, seed=settings.seed, device=place)
        if norm is not None:
            norm.ready(LONGEST_WAIT)
        listener = _Listener(settings.epochs)
        epochs = train(model, data, settings, on_step=listener.step)
    except device.DeviceUnavailableError as error:
        return _fail(error, UNAVAILABLE)
    except (
        kernels.UnknownImplementationError,
        kernels.BrokenImplementationError,
        fashion_mnist.DataError,
        ValueError,
    ) as error:
        return _fail(error, BAD_INPUT)
    load_seconds = time.perf_counter() - start
    print(f"data: {data.source}; memory: {memory}", file=sys.stderr)
    warm_up_seconds = warm_up(model, data, settings)

    print("training on", place, flush=True)
    done = []
    with listener.progress:
        for epoch in epochs:
            print(f"epoch {epoch.number}, test acc {epoch.test_accuracy:.3f}", flush=True)
            done.append(epoch)
    _summary(done, place, time.perf_counter() - start, load_seconds, warm_up_seconds)
    return 0


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
            disable=not sys.stderr.isatty(),
        )
        self.task = self.progress.add_task("training", total=epochs)

    def step(self, step: Step) -> None:
        print(
            f"epoch {step.epoch}, step {step.step}, "
            f"train loss {step.train_loss:.3f}, train acc {step.train_accuracy:.3f}",
            flush=True,
        )
        completed = step.epoch - 1 + step.step / step.steps
        self.progress.update(self.task, completed=completed, description=f"epoch {step.epoch}", refresh=True)


def _summary(
    epochs: list[Epoch], place: torch.device, seconds: float, load_seconds: float, warm_up_seconds: float
) -> None:
    last = epochs[-1]
    examples = sum(epoch.examples for epoch in epochs)
    step_seconds = sum(epoch.step_seconds for epoch in epochs)
    evaluation_seconds = sum(epoch.wall_seconds - epoch.step_seconds for epoch in epochs)
    print(f"loss {last.train_loss:.3f}, train acc {last.train_accuracy:.3f}, test acc {last.test_accuracy:.3f}")
    print(f"{examples / step_seconds:.1f} examples/sec on {place}")
    print(
        f"{examples / seconds:.1f} examples/sec of the whole {seconds:.1f} s: loading {load_seconds:.1f}, "
        f"warm-up {warm_up_seconds:.1f}, steps {step_seconds:.1f}, evaluation {evaluation_seconds:.1f}"
    )


if __name__ == "__main__":
    raise SystemExit(main())

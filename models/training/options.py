"""The options of `python -m models.training`."""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import sys
from collections.abc import Callable

import kernels
from models import device, torchrun
from models.recipes import LENET, RECIPES
from models.training import Settings


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The options; argparse exits, with 2, for what it rejects."""
    if torchrun.is_first():
        return _parser().parse_args(argv)
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            return _parser().parse_args(argv)
    except SystemExit as end:
        if end.code:
            torchrun.let_the_first_speak()
            print(text.getvalue(), end="", file=sys.stderr, flush=True)
        raise


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
        description="Train a network on Fashion-MNIST once, with any batch norm in it. Under torchrun, its processes"
        " divide every batch.",
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
    parser.add_argument(
        "--sync",
        action="store_true",
        help="under torchrun, normalize with the statistics of the whole batch in place of each process's shard; for"
        " an implementation with the four steps of kernels/steps.py. One process has whole batches without it",
    )
    return parser


def _defaults(name: str) -> str:
    """A setting of each network, or the one that all of them have."""
    values = {network: getattr(each.settings, name) for network, each in RECIPES.items()}
    if len(set(values.values())) == 1:
        return str(next(iter(values.values())))
    return ", ".join(f"{value} for {network}" for network, value in values.items())

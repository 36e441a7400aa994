"""Draw duties from a seed: problems over all that `F.batch_norm` may be asked for, and how each is to be called."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from kernels import reference
from kernels.duties.calls import OPERANDS, PLAIN, Plan, Tensors
from kernels.duties.covering import Row
from kernels.duties.layouts import EXPANDED, LAYOUTS
from kernels.problems import make_problem
from kernels.reference import Problem

MOST_ELEMENTS = 40_000
KINK = 1e-4
"""The slope of relu is not asked for this near to 0, relative to the largest value: a rounding decides it."""

FACTORS: dict[str, Sequence[Any]] = {
    "training": (True, False),
    "dimensions": (2, 3, 4, 5),
    "batch": ("one", "two", "three", "odd", "round", "hundreds", "thousands"),
    "channels": ("one", "few", "odd", "round"),
    "places": ("one", "odd", "even", "in a line"),
    "eps": ("1e-5", "1e-3", "tiny", "large"),
    "scale": ("of one", "of the root of eps"),
    "momentum": (0.1, 0.0, 1.0, "any"),
    "affine": ("both", "neither", "weight", "bias"),
    "statistics": ("moved", "fresh", "none"),
    "grad_mode": ("grad", "grad", "grad", "no_grad", "inference_mode"),
    "wanted": ("all", "input", "parameters", "weight", "bias", "nothing"),
    "input_layout": tuple(LAYOUTS),
    "grad_layout": (*LAYOUTS, *EXPANDED),
    "backward": ("once", "twice", "accumulated"),
    "parameters": (True, False),
    "keywords": (True, False),
    "leaf": (True, False),
}
BLOCK_FACTORS: dict[str, Sequence[Any]] = {
    "activation": ("sigmoid", "relu"),
    "pool": (None, 2),
    "residual": (*[None] * len(LAYOUTS), *LAYOUTS),
    "wanted": (*FACTORS["wanted"], "residual"),
}
WANTED = {
    "all": ("input", "weight", "bias", "residual"),
    "input": ("input",),
    "parameters": ("weight", "bias"),
    "weight": ("weight",),
    "bias": ("bias",),
    "residual": ("residual",),
    "nothing": (),
}


PLAIN_ROW: Row = {"momentum": 0.1, "parameters": False, "backward": "once", "grad_layout": "contiguous"}
EASIER: tuple[tuple[str, Sequence[Any], Any], ...] = (
    # factor, what is hard, what is not
    ("affine", ("neither", "weight", "bias"), "both"),
    ("statistics", ("none",), "moved"),
    ("dimensions", (2, 3, 5), 4),
    ("dimensions", (4,), 2),
    ("training", (True,), False),
    ("grad_mode", ("grad",), "no_grad"),
)
"""Replacements for values that an implementation lacks, so that the rest of the row can still be asked for."""


@dataclass(frozen=True)
class Duty:
    """Calls that are asked for together.

    Attributes:
        name: What is special about it.
        way: See `kernels.duties.calls.WAYS`.
        problems: For each call the operands, dense, and the settings.
        calls: For each call a dict like `PLAIN`.
        order: Of the backwards.
        row: The values of the factors that it was drawn by.
        rough: Its type is none that is timed here, so the roundings of that type are enough.
        poison: None, or the operand that has a value which is not finite, in channel 0.
    """

    name: str
    way: str
    problems: tuple[Problem, ...]
    calls: tuple[dict[str, Any], ...]
    order: tuple[int, ...]
    row: Row
    rough: bool = False
    poison: str | None = None

    def plan(self) -> tuple[Plan, Tensors]:
        """What `kernels.duties.calls.perform` takes."""
        tensors = {
            f"{number}.{name}": tensor
            for number, problem in enumerate(self.problems)
            for name in (*OPERANDS, "grad_output")
            if (tensor := getattr(problem, name)) is not None
        }
        return {"way": self.way, "order": list(self.order), "calls": list(self.calls)}, tensors


def settle(row: Row) -> Row:
    """A row that can be asked for; see `covering.rows`."""
    row = dict(row)
    if not row["training"]:
        del row["momentum"]  # means nothing
        if row["statistics"] == "none":
            row["statistics"] = "moved"
    elif row["statistics"] == "none":
        del row["momentum"]
    if row["dimensions"] == 2:
        row["places"] = "one"
    if row["training"] and row["places"] == "one" and row["batch"] == "one":
        row["batch"] = "two"  # one value has no variance
    for name in ("input_layout", "grad_layout", "residual"):
        if row["dimensions"] == 2 and row.get(name) == "channels-last":
            row[name] = "transposed"
    present = {"both": ("weight", "bias"), "neither": (), "weight": ("weight",), "bias": ("bias",)}[row["affine"]]
    if not present:
        del row["parameters"]
    others = ("input",) if row.get("residual") is None else ("input", "residual")
    wanted = [name for name in WANTED[row["wanted"]] if name in (*others, *present)]
    if not wanted:
        row["wanted"] = "nothing"
    if row["grad_mode"] != "grad" or not wanted:
        for name in ("backward", "grad_layout"):
            row.pop(name)
    elif row.get("activation") == "relu" and row["grad_layout"] in EXPANDED:
        row["grad_layout"] = "contiguous"  # see `with_gradient_of`
    if "pool" in row and (row["dimensions"] != 4 or row["places"] in ("one", "in a line")):
        row["pool"] = None
    return row


def easier(row: Row) -> Iterator[Row]:
    """The same row with fewer and fewer of the things that an honest implementation may refuse."""
    for name, hard, easy in EASIER:
        if row[name] in hard:
            row = settle(PLAIN_ROW | row | {name: easy})
            yield row


def shape_of(row: Row, generator: random.Random) -> tuple[int, ...]:
    """A shape of the row's kind; of thousands of images there are fewer than drawn where they would be too large."""

    def log_uniform(low: int, high: int) -> int:
        return round(math.exp(generator.uniform(math.log(low), math.log(high))))

    batch = {
        "one": 1,
        "two": 2,
        "three": 3,
        "odd": generator.choice((5, 7, 9, 11, 13)),
        "round": generator.choice((8, 16, 32, 64)),
        "hundreds": log_uniform(100, 700),
        "thousands": log_uniform(701, 12_000),
    }[row["batch"]]
    channels = {
        "one": 1,
        "few": generator.randint(2, 7),
        "odd": generator.choice(range(9, 70, 2)),
        "round": generator.choice((8, 16, 32, 64)),
    }[row["channels"]]
    places = [1] * (row["dimensions"] - 2)
    if row["places"] == "in a line":
        places[generator.randrange(len(places))] = generator.randint(2, 33)
    elif row["places"] != "one":
        places = [generator.choice((3, 5, 7, 9) if row["places"] == "odd" else (2, 4, 6, 8)) for _ in places]
    while channels > 2 and batch * channels * math.prod(places) > MOST_ELEMENTS:
        channels -= 2
    while max(places, default=0) > 4 and batch * channels * math.prod(places) > MOST_ELEMENTS:
        places[places.index(max(places))] -= 2
    if row["batch"] == "thousands":
        batch = max(701, min(batch, MOST_ELEMENTS // (channels * math.prod(places))))
    return (batch, channels, *places)


def drawn(row: Row, generator: random.Random, dtype: torch.dtype, device: torch.device) -> Duty:
    """One call of the row's kind."""
    eps = {"1e-5": 1e-5, "1e-3": 1e-3, "tiny": 10 ** generator.uniform(-8, -6)}.get(row["eps"])
    eps = eps or 10 ** generator.uniform(-2, 0.5)
    std = math.exp(generator.uniform(-0.7, 1.4))
    if row["scale"] == "of the root of eps":  # so that who takes another eps is far off
        std = math.sqrt(eps) * math.exp(generator.uniform(0, 2.5))
    mean = std * generator.uniform(-1.5, 1.5)
    problem = make_problem(
        shape_of(row, generator),
        dtype=dtype,
        device=device,
        seed=generator.randrange(1 << 31),
        mean=mean,
        std=std,
        training=row["training"],
        residual=row.get("residual") is not None,
        activation=row.get("activation"),
        pool=row.get("pool"),
        backward="backward" in row,
    )
    assert problem.running_mean is not None
    assert problem.running_var is not None
    momentum = row.get("momentum", 0.1)
    statistics = {
        "moved": (problem.running_mean * std + mean, problem.running_var * std**2),
        "fresh": (torch.zeros_like(problem.running_mean), torch.ones_like(problem.running_var)),
        "none": (None, None),
    }[row["statistics"]]
    problem = replace(
        problem,
        running_mean=statistics[0],
        running_var=statistics[1],
        weight=problem.weight if row["affine"] in ("both", "weight") else None,
        bias=problem.bias if row["affine"] in ("both", "bias") else None,
        momentum=generator.uniform(0.01, 0.99) if momentum == "any" else momentum,
        eps=eps,
    )
    if "backward" in row:
        problem = with_gradient_of(problem, row["grad_layout"])
    settings = {name: row[name] for name in PLAIN if name in row and name not in ("eps", "momentum", "wanted")}
    settings["residual_layout"] = row.get("residual") or PLAIN["residual_layout"]
    return single("", problem, row, wanted=_present(problem, WANTED[row["wanted"]]), **settings)


def single(name: str, problem: Problem, row: Row | None = None, **settings: Any) -> Duty:
    """One call for itself."""
    return Duty(name, "held", (problem,), (call(problem, **settings),), (0,), row or {})


def call(problem: Problem, **settings: Any) -> dict[str, Any]:
    """How to call for a problem: the settings that it has, and others of `PLAIN`."""
    own = {name: getattr(problem, name) for name in ("training", "momentum", "eps", "activation", "pool")}
    return PLAIN | {"wanted": _present(problem, PLAIN["wanted"])} | own | settings


def _present(problem: Problem, names: Sequence[str]) -> list[str]:
    return [name for name in names if getattr(problem, name) is not None]


def with_gradient_of(problem: Problem, layout: str) -> Problem:
    """The same problem with a gradient that can lie so, and nothing sent back where the slope of relu is a rounding."""
    dy = problem.grad_output
    assert dy is not None
    if layout in EXPANDED:
        dy = EXPANDED[layout](dy).contiguous()
    if problem.activation == "relu":
        before = reference.solve(replace(problem, activation=None, grad_output=None))
        z = before.values["output"].abs()
        # What is normalized may be rounded to its type before a residual brings it near to 0.
        rounded = torch.float32 if problem.residual is None else problem.input.dtype
        margin = max(KINK, 8 * torch.finfo(rounded).eps * before.condition) * z.max()
        dy = dy.masked_fill((z <= margin).to(dy.device), 0)
    return replace(problem, grad_output=dy)

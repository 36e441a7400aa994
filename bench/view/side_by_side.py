"""Machines side by side, for the index of `results/`: a row per implementation, a column per machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from bench.record.clocks import on_gpu
from bench.record.labels import row_order
from bench.record.operations import CHANNELS_LAST
from bench.record.records import Record
from bench.record.runs import main_run, newest
from bench.view.columns import Column, markdown, one_each
from bench.view.headline import MARK, Line, headline, is_marked
from bench.view.headline_figures import NONE


def _block(line: Line) -> str:
    text = _with(line.block, line.block_ratio)
    return f"{text}, {line.verdict}" if line.verdict not in (NONE, "baseline") else text


def _device_block(line: Line) -> str:
    text = _with(line.device_block, line.device_ratio)
    return f"{text}, {line.device_verdict}" if line.device_verdict not in (NONE, "baseline") else text


GPU_NOTE = " On a GPU, times and ratios are wall time, the host's launches included, unless named on the device."
MARKED = f"{MARK}: best alternative on that machine, the fastest of what a user gets without this project's kernels."
FIGURES: dict[str, Callable[[Line], str]] = {
    "LeNet's first block, forward + backward: µs (time / `builtin`'s on the same machine), verdict": _block,
    "The same block on the device, without the host's launches: µs (time / `builtin`'s by the same clock), verdict": (
        _device_block
    ),
    "Training: examples/sec (time of a step / `builtin`'s on the same machine)": (
        lambda line: _with(line.examples, line.step_ratio)
    ),
    "A step on the device: time / `builtin`'s by the same clock": lambda line: line.device_step_ratio,
    "Test accuracy, mean of the last epochs over seeds": lambda line: line.accuracy,
}


def tables(machines: Sequence[tuple[str, list[Record]]]) -> str:
    """A table per figure, and what differs between the machines besides themselves; empty for a single machine.

    Args:
        machines: Name and records of each, in the order of the columns.
    """
    by_machine = {name: {line.implementation: line for line in headline(records)} for name, records in machines}
    by_machine = {name: lines for name, lines in by_machine.items() if lines}
    if len(by_machine) < 2:
        return ""
    order = {f"`{r['implementation']}`": row_order(r) for _, records in machines for r in records if "order" in r}
    names = sorted(
        {name for lines in by_machine.values() for name in lines}, key=lambda name: (order[_usual(name)], name)
    )
    parts = ["## Machines side by side"]
    marked = any(is_marked(line) for lines in by_machine.values() for line in lines.values())
    for title, figure in FIGURES.items():
        cells = partial(_cell, by_machine, figure)
        columns = [Column[str]("implementation", lambda name: name), *one_each(by_machine, cells)]
        if rows := [name for name in names if any(cells(machine, name) != NONE for machine in by_machine)]:
            parts += [f"**{title}**", markdown(columns, rows)]
    gpu = on_gpu(r for _, records in machines for r in records)
    parts.append(
        "Ratios are to `builtin` on the same machine, in paired measurements; times depend on the machine as much as on"
        f" the code.{MARKED if marked else ''}{GPU_NOTE if gpu else ''}"
        f" {_conditions(machines)} `python -m bench.compare` compares two machines row by row."
    )
    return "\n\n".join(parts)


def _usual(name: str) -> str:
    """The implementation's own row, for its row in another memory format."""
    return name.replace(f", {CHANNELS_LAST}`", "`")


def _cell(by_machine: Mapping[str, Mapping[str, Line]], figure: Callable[[Line], str], machine: str, name: str) -> str:
    lines = by_machine[machine]
    return figure(lines[name]) if name in lines else NONE


def _with(figure: str, ratio: str) -> str:
    return f"{figure} ({ratio})" if ratio != NONE else figure


def _conditions(machines: Sequence[tuple[str, list[Record]]]) -> str:
    """Versions and data of each, where they are not the same for all."""
    differences = []
    for what, of in (("torch", _torch), ("training data", _data)):
        values = {name: value for name, records in machines if (value := of(records))}
        if len(set(values.values())) > 1:
            differences.append(f"{what}: " + ", ".join(f"{value} on {name}" for name, value in values.items()))
    return (
        f"Machines differ in {'; '.join(differences)}."
        if differences
        else "All have the same version of torch and the same training data."
    )


def _torch(records: list[Record]) -> str | None:
    return str(newest(records)["conditions"]["versions"]["torch"])


def _data(records: list[Record]) -> str | None:
    epochs = main_run(records).get("epoch")
    return str(epochs[-1]["data"]) if epochs else None

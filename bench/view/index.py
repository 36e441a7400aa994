"""The index of the published machines, and the part of README.md that is made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.record.clocks import on_gpu
from bench.record.records import Record
from bench.record.runs import newest
from bench.view import headline, side_by_side

MOST_ROWS = 5
"""Of README's table."""


class Machine(NamedTuple):
    """A published machine.

    Attributes:
        name: The folder's name.
        records: All of its records.
        files: Names of its pages.
        answers: Question and short answer of each study, by page.
    """

    name: str
    records: list[Record]
    files: Sequence[str]
    answers: Mapping[str, tuple[str, str]]


def page(machines: Sequence[Machine], where: str) -> str:
    """The index: machines side by side, then each one, in the order given.

    Args:
        machines: The newest first.
        where: The folder that theirs are in, as links have it.
    """
    parts = [
        "# Results",
        (
            "Published runs, one folder per machine, newest first. `python -m bench.publish` generates this page from"
            " the records. Your own runs go to `results/<machine>/`, which git ignores."
        ),
        side_by_side.tables([(machine.name, machine.records) for machine in machines]),
    ]
    for machine in machines:
        last = newest(machine.records)
        links = ", ".join(f"[{name}]({where}/{machine.name}/{name})" for name in machine.files)
        parts += [
            f"## {last['conditions']['device_name']}",
            (
                f"`{machine.name}`, last measured {last['time'][:10]},"
                f" torch {last['conditions']['versions']['torch']}: {links}"
            ),
            findings(machine, where),
        ]
    return "\n\n".join(part for part in parts if part) + "\n"


def readme(machines: Sequence[Machine], where: str) -> str:
    """The part of README.md, each piece from the newest machine that has it.

    The findings of the newest CPU, which every reader has, and its table; a sentence for every other type of device;
    what each study found.

    Args:
        machines: The newest first.
        where: The folder that theirs are in, as links have it.
    """
    by_device: dict[str, Machine] = {}
    for machine in machines:
        if headline.sentence(machine.records):
            by_device.setdefault(newest(machine.records)["conditions"]["device"], machine)
    parts = []
    for device, machine in sorted(by_device.items(), key=lambda item: item[0] != "cpu"):
        conditions = newest(machine.records)["conditions"]
        host = f"host: {conditions['cpu']}, " if on_gpu(machine.records) else ""
        place = f"On {conditions['device_name']}, {host}{conditions['cores']} cores"
        parts.append(f"{place} ([all tables]({where}/{machine.name}/)):")
        parts.append("\n".join(f"- {sentence}" for sentence in headline.sentences(machine.records)))
        if device == "cpu" or "cpu" not in by_device:
            parts.append(headline.table(machine.records, MOST_ROWS))
    answers: dict[str, str] = {}
    for machine in machines:
        answers = {**_answers(machine, where), **answers}
    return "\n\n".join(part for part in [*parts, _listed(answers)] if part)


def findings(machine: Machine, where: str) -> str:
    """Ours against the best alternative on a machine, the short table, and the answers of the studies."""
    parts = [headline.sentence(machine.records), headline.table(machine.records), _listed(_answers(machine, where))]
    return "\n\n".join(part for part in parts if part)


def _answers(machine: Machine, where: str) -> dict[str, str]:
    """By page, a line with the question and the short answer."""
    return {
        file: f"- [{question}]({where}/{machine.name}/{file}) {answer}."
        for file, (question, answer) in machine.answers.items()
    }


def _listed(answers: Mapping[str, str]) -> str:
    return "\n".join(["What studies found:", "", *answers.values()]) if answers else ""

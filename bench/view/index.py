"""The index of the published machines, and the part of README.md that shows the newest one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.record.clocks import on_gpu
from bench.record.records import Record
from bench.record.runs import newest
from bench.view import headline, side_by_side


class Machine(NamedTuple):
    """A published machine.

    Attributes:
        name: Of its folder.
        records: All of it.
        files: Names of its pages.
        answers: What the studies found: question and short answer, by page.
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


def newest_machine(machine: Machine, where: str) -> str:
    """The part of README.md."""
    conditions = newest(machine.records)["conditions"]
    link = f"[all tables]({where}/{machine.name}/)"
    host = f"host: {conditions['cpu']}, " if on_gpu(machine.records) else ""
    return f"On {conditions['device_name']}, {host}{conditions['cores']} cores ({link}): {findings(machine, where)}"


def findings(machine: Machine, where: str) -> str:
    """Who is fastest on a machine, the short table, and what the studies found."""
    answers = [
        f"- [{question}]({where}/{machine.name}/{file}) {answer}."
        for file, (question, answer) in machine.answers.items()
    ]
    claims = "Studies of the lesson's claims about batch norm:"
    parts = [headline.sentence(machine.records), headline.table(machine.records)]
    parts += ["\n".join([claims, "", *answers])] if answers else []
    return "\n\n".join(part for part in parts if part)

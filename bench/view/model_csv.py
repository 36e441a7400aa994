"""`model-NAME.csv`: a row for each step, inference and block of a network."""

from __future__ import annotations

from bench.record.clocks import COLD, DEVICE_COLD, WALL, Clock
from bench.record.labels import AA, BASELINE
from bench.record.records import OK, Record
from bench.record.verdicts import Verdicts
from bench.view.columns import Column, comma_separated
from bench.view.model_records import INFERENCE, part, predicted, step_clock

CLOCKS = {"step": (WALL, INFERENCE, DEVICE_COLD), "block": (WALL, COLD, DEVICE_COLD)}


def csv_page(records: list[Record]) -> str:
    """`model-NAME.csv`: a row for each step, inference and block."""
    rows = [(record, clock) for record in records for clock in _clocks(record)]
    judges = {(of, clock): Verdicts(part(records, of), clock) for of, clocks in CLOCKS.items() for clock in clocks}
    columns: list[Column[tuple[Record, Clock]]] = [
        *(_from_key(name) for name in ("model", "input", "of", "shape", "operation", "memory_format", "dtype")),
        Column("clock", lambda row: row[1].name),
        Column("implementation", lambda row: row[0]["implementation"]),
        Column("status", lambda row: row[0]["status"]),
        Column("reason", lambda row: row[0].get("reason", "")),
        Column("us", lambda row: _us(row, "candidate")),
        Column("builtin_us", lambda row: _us(row, "baseline")),
        *(_from_ratio(number, name) for number, name in enumerate(("ratio_to_builtin", "ratio_low", "ratio_high"))),
        Column("verdict", lambda row: judges[row[0]["key"]["of"], row[1]].of(row[0]) if row[0]["status"] == OK else ""),
        Column("predicted_ratio", lambda row: _predicted_cell(row, records)),
        Column("kept_bytes", lambda row: row[0].get("kept_bytes")),
        Column("run", lambda row: row[0]["run"]),
        Column("commit", lambda row: row[0]["conditions"]["commit"]),
    ]
    return comma_separated(columns, rows)


def _clocks(record: Record) -> tuple[Clock, ...]:
    of = record["key"]["of"]
    if of == "norms":
        return ()
    if record["status"] != OK:
        return (WALL,)
    return tuple(clock for clock in CLOCKS[of] if clock is WALL or clock.times(record))


def _from_key(name: str) -> Column[tuple[Record, Clock]]:
    return Column(name, lambda row: row[0]["key"].get(name))


def _from_ratio(number: int, name: str) -> Column[tuple[Record, Clock]]:
    def cell(row: tuple[Record, Clock]) -> float | None:
        times = row[1].times(row[0])
        return float(times["ratio"][number]) if times else None

    return Column(name, cell)


def _us(row: tuple[Record, Clock], side: str) -> float | None:
    time_ns = row[1].time_ns(row[0], side)
    return None if time_ns is None else time_ns / 1e3


def _predicted_cell(row: tuple[Record, Clock], records: list[Record]) -> float | None:
    record, clock = row
    if record["key"]["of"] != "step" or clock is not step_clock([record]) or record["status"] != OK:
        return None
    return None if record["implementation"] in (AA, BASELINE) else predicted(record, records)

"""One run of the main job: what it has measured, and what an earlier run already did."""

from __future__ import annotations

import datetime as dt
import secrets
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.record.records import ERROR, FILE, Journal, Record, RecordsWarning, identity, read
from bench.record.runs import same_conditions
from bench.session.candidate import Candidate
from kernels import Implementation


class DeviceLostError(Exception):
    """This process can't use its device any more; the message says after whose measurement, and how to continue."""


class Run:
    """Appends measurements to a journal, each with its conditions.

    Args:
        journal: Where the records go.
        conditions: What holds for all of this run's measurements; see `environment.conditions`.
        resume: Continue the journal's last run: measurements under the same conditions and with the same code are
            kept.
    """

    def __init__(self, journal: Journal, conditions: Mapping[str, Any], *, resume: bool) -> None:
        self.journal = journal
        self.conditions = dict(conditions)
        self.resume = resume
        last = journal.records[-1]["run"] if resume and journal.records else None
        now = dt.datetime.now(dt.timezone.utc)
        self.id = last or f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
        self._known = {identity(record): record for record in journal.records if record["run"] == last}

    def done(self, key: Mapping[str, Any], candidate: Candidate | None = None) -> Record | None:
        """This run's record of a key, if code and conditions are still the same.

        A crash is tried again, unless the device was lost in it.
        """
        record = self._known.get(identity({"key": dict(key)}))
        if record is None or (record["status"] == ERROR and not record.get("fatal")):
            return None
        same_source = record["source"] == (candidate.source if candidate else "")
        # Measure again what a page can't show next to the rest of this run.
        return record if same_source and same_conditions(record["conditions"], self.conditions) else None

    def append(self, key: Mapping[str, Any], outcome: Mapping[str, Any], candidate: Candidate | None = None) -> Record:
        """Write a finished measurement down, synced, and return its record.

        Raises:
            RecordsError: It can't be written.
            DeviceLostError: It is written, and this process can't measure anything else.
        """
        own: Record = {
            "kind": key["kind"],
            "run": self.id,
            "time": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
            "key": dict(key),
            "implementation": key["implementation"],
            **describe(candidate),
        }
        # The run, not the outcome, decides what identifies a record.
        record = {**own, **outcome, **own, "conditions": self.conditions}
        if damage := self.journal.mend():
            warnings.warn(
                f"{FILE} {damage} while {record['implementation']} was measured: this run has restored its records",
                RecordsWarning,
                stacklevel=2,
            )
        self.journal.append(record)
        self._known[identity(record)] = record
        if record.get("fatal") and (candidate is None or candidate.child is None):
            name = record["implementation"]
            raise DeviceLostError(
                f"{name}: {record['reason']}; finished measurements are kept; --resume continues with {name} in its"
                " own process"
            )
        return record


def took_the_device(path: Path) -> set[str]:
    """The implementations after which a process of the last run could not use its device any more.

    Args:
        path: A records file; it need not be there.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordsWarning)  # the journal says so when it is opened
        records = read(path) if path.is_file() else []
    return {r["implementation"] for r in records if r["run"] == records[-1]["run"] and r.get("fatal")}


def describe(candidate: Candidate | None) -> dict[str, Any]:
    """What the tables say of an implementation, so that they need nothing but records."""
    implementation = candidate.loaded if candidate else None
    without = "not loaded" if candidate and candidate.unavailable else ""
    return {
        "source": candidate.source if candidate else "",
        "order": implementation.order if implementation else 1000,
        "summary": implementation.summary if implementation else without,
        "fused": implementation.fused if implementation else False,
        "differences": dict(implementation.differences) if implementation else {},
        **({"conventions": _plain(implementation)} if implementation and implementation.conventions else {}),
    }


def _plain(implementation: Implementation) -> dict[str, dict[str, str]]:
    return {name: convention._asdict() for name, convention in implementation.conventions.items()}

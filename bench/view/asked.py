"""What a run measured beside the standard operations, or in their place: since somebody asked for it."""

from __future__ import annotations

from bench.record.operations import CONTIGUOUS, Operation, operation_of, standard_passes
from bench.record.records import Record
from bench.view.tables import listed

OPTIONS = "`--shape`, `--block` or `--memory-format`"


def counted(latencies: list[Record]) -> list[Record]:
    """Those that an answer counts: the standard cells, so that runs are alike; all of them where there are none."""
    return [record for record in latencies if _is_standard(record)] or latencies


def note(latencies: list[Record]) -> str:
    """A sentence about the operations that are not standard; empty where all are."""
    found = dict.fromkeys(operation_of(record["key"]) for record in latencies)
    others = [operation for operation in found if not operation.is_standard]
    if not others:
        return ""
    shapes: dict[tuple[str, str], list[Operation]] = {}
    for operation in others:
        shapes.setdefault((operation.description, operation.memory_format), []).append(operation)
    texts = [
        f"{description} at {listed([str(operation.shape) for operation in group])}"
        + (f", {memory_format}" if memory_format != CONTIGUOUS else "")
        for (description, memory_format), group in shapes.items()
    ]
    if len(others) < len(found):
        return f"Beside standard operations, and not counted above, as asked for with {OPTIONS}: {'; '.join(texts)}."
    return f"Not the standard operations, but what was asked for with {OPTIONS}: {'; '.join(texts)}."


def _is_standard(record: Record) -> bool:
    operation = operation_of(record["key"])
    return operation.is_standard and record["key"]["pass"] in standard_passes(operation)

"""What a conversion did with the batch norms of a network."""

from __future__ import annotations

from dataclasses import dataclass

from tabulate import tabulate


@dataclass(frozen=True)
class Change:
    """What a conversion did with one batch norm.

    Attributes:
        name: Its path, as in `named_modules`.
        kind: Its class before.
        features: Its channels.
        action: "fused", "swapped" or "left".
        note: What it is fused with, or why it is not fused or was left alone.
    """

    name: str
    kind: str
    features: int | None
    action: str
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What a conversion did with all batch norms of a network.

    Attributes:
        changes: One for each, in the order of the network.
        not_fused: Why nothing could be fused at all; empty where it could.
    """

    changes: tuple[Change, ...]
    not_fused: str = ""

    def count(self, action: str) -> int:
        """How many were "fused", "swapped" or "left"."""
        return sum(change.action == action for change in self.changes)

    def __str__(self) -> str:
        """A table, and why nothing was fused."""
        rows = [(c.name, c.kind, c.features, c.action, c.note) for c in self.changes]
        table = tabulate(rows, ["batch norm", "class", "channels", "became", "with, or why not"])
        return f"{table}\n\nNothing is fused: {self.not_fused}" if self.not_fused else table

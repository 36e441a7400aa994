"""What autograd keeps for a backward, in bytes, and who asked it to."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from bench.record.parts import DATA, Place


class _Kept:
    """What autograd holds in place of a tensor that it saved: it lives as long as the graph that needs it.

    Args:
        tensor: What was saved.
        place: Where the step was then.
    """

    def __init__(self, tensor: Tensor, place: Place) -> None:
        self.tensor, self.place = tensor, place


class Ledger:
    """Notes what autograd saves, and where the step is when it does.

    What it noted doesn't live by that: a part of the graph that the forward drops again takes its tensors along, as
    without a ledger. What is left has addresses of its own, so nothing is taken for something else.
    """

    def __init__(self) -> None:
        self._place = Place(DATA)
        self._kept: list[weakref.ref[_Kept]] = []

    def enter(self, place: Place) -> None:
        """Whatever is saved from now on is this part's: a boundary for `parts.watch`."""
        self._place = place

    def hooks(self) -> saved_tensors_hooks:
        """The context in which it notes."""

        def pack(tensor: Tensor) -> _Kept:
            # Detached: a result that its own operation saved would hold the graph, which holds it, and never be freed.
            kept = _Kept(tensor.detach(), self._place)
            self._kept.append(weakref.ref(kept))
            return kept

        return saved_tensors_hooks(pack, lambda kept: kept.tensor)

    def rows(self, known: Iterable[Tensor]) -> list[dict[str, Any]]:
        """Bytes that are still kept, in the order of the forward; the graph must still be there.

        Args:
            known: What exists anyway. Their storages don't count.

        Returns:
            A row for each part that keeps something, {"part", "child", "bytes"}. Each storage counts once, as a whole,
            at the first part that keeps it.
        """
        seen = {tensor.untyped_storage().data_ptr() for tensor in known}
        sizes: dict[Place, int] = {}
        for kept in [kept for ref in self._kept if (kept := ref())]:
            storage = kept.tensor.untyped_storage()
            if storage.data_ptr() not in seen and storage.nbytes():
                sizes[kept.place] = sizes.get(kept.place, 0) + storage.nbytes()
            seen.add(storage.data_ptr())
        return [{"part": place.part, "child": place.child, "bytes": size} for place, size in sizes.items()]

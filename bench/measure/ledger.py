"""The bytes that autograd keeps for a backward, by the part that saved them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from bench.record.parts import DATA, Place


class _Kept:
    """Stands in for a tensor that autograd saved, and lives as long as the graph that needs it.

    Args:
        tensor: The saved tensor.
        place: Where the step was then.
    """

    def __init__(self, tensor: Tensor, place: Place) -> None:
        self.tensor, self.place = tensor, place


class Ledger:
    """Notes the tensors that autograd saves, and where the step is when it does.

    It keeps none of them alive: a part of the graph that the forward drops frees its tensors, as without a ledger. The
    tensors that remain have distinct addresses, so none is mistaken for another.
    """

    def __init__(self) -> None:
        self._place = Place(DATA)
        self._kept: list[weakref.ref[_Kept]] = []

    def enter(self, place: Place) -> None:
        """Attribute tensors that are saved from now on to this part: a boundary for `parts.watch`."""
        self._place = place

    def hooks(self) -> saved_tensors_hooks:
        """The context manager in which saved tensors are noted."""

        def pack(tensor: Tensor) -> _Kept:
            # Detached: a result that its own operation saved would hold the graph, which holds it, and never be freed.
            kept = _Kept(tensor.detach(), self._place)
            self._kept.append(weakref.ref(kept))
            return kept

        return saved_tensors_hooks(pack, lambda kept: kept.tensor)

    def rows(self, known: Iterable[Tensor]) -> list[dict[str, Any]]:
        """Bytes that are still kept, in the order of the forward; the graph must still be there.

        Args:
            known: Tensors that exist anyway. Their storages don't count.

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

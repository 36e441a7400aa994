"""Where the slope of relu is a rounding's choice: an answer is judged by the choice that it made."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.reference import Kink


class Kinks:
    """Values so near to the kink of relu that two correct implementations may see them on different sides.

    One value of 100,000 changes a gradient's sum by more than all roundings. So no tolerance can cover it, and none
    has to: the output says on which side an implementation saw a value, and its gradient must agree.

    Args:
        kink: Of the solution.
        rounding: The error that z may have.
        own_rounding: By how much z may differ between forward and backward of one implementation, which may calculate
            it twice.
    """

    def __init__(self, kink: Kink, rounding: float, own_rounding: float) -> None:
        distance = kink.z.abs()
        self._positive = kink.z > 0
        self._undecided = distance <= rounding
        self.any = bool(self._undecided.any())
        places = (distance <= own_rounding).nonzero(as_tuple=True)
        gradient = kink.gradient[places]
        self._places, self._gradient = places, gradient
        self._sent = torch.where(self._positive[places], gradient, 0.0)
        self._gain = kink.gain.expand_as(kink.z)[places]

    def choice(self, answers: dict[str, Tensor], dx: Tensor | None) -> Tensor | None:
        """Where an implementation took the slope for 1, or None where the reference did.

        Args:
            answers: Its output, of a pool too, and its dx.
            dx: The reference's.
        """
        y = answers["output"].to(self._positive.device)
        pooled = y.shape != self._positive.shape
        above = _spread(y > 0, self._positive) if pooled else y > 0
        positive = torch.where(self._undecided, above, self._positive)
        if dx is not None and not pooled and len(self._gradient):
            off = (answers["dx"].to(dx)[self._places] - dx[self._places]) / self._gain + self._sent
            seen = self._gradient != 0
            chosen = off * self._gradient > self._gradient.square() / 2
            positive[self._places] = torch.where(seen, chosen, positive[self._places])
        return None if torch.equal(positive, self._positive) else positive


def _spread(of_windows: Tensor, like: Tensor) -> Tensor:
    """What holds for each 2 x 2 window, for each pixel of it; pixels outside of whole windows are as in `like`."""
    spread = like.clone()
    whole = spread[:, :, : 2 * of_windows.shape[2], : 2 * of_windows.shape[3]]
    whole.copy_(of_windows.repeat_interleave(2, 2).repeat_interleave(2, 3))
    return spread

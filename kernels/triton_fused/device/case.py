"""What the compiler sees as constant: sizes, form and tile of one pass over a batch."""

from __future__ import annotations

from dataclasses import dataclass

import triton.language as tl


@dataclass(frozen=True)
class Case:
    """What is constant for a shape.

    Attributes:
        C: Channels.
        H: Rows; 1 without a pool.
        W: Columns; without a pool all pixels of a plane.
        planes: Whether memory is in planes, else in rows.
        pool: Whether to pool 2 x 2.
        activation: None, "sigmoid" or "relu".
        training: Whether the statistics are the batch's.
        cumulative: Whether the running statistics average over all batches that the counter has seen.
        BM: Units of a tile.
        BC: Channels of a tile.
        splits: Programs that share a channel group, in the split form.
        double: Whether to calculate in float64.
        wide: Whether offsets need 64 bits; never in the resident form, which counts from a literal 0 in 32.
    """

    C: int
    H: int
    W: int
    planes: bool
    pool: bool
    activation: str | None
    training: bool
    cumulative: bool
    BM: int
    BC: int
    splits: int
    double: bool
    wide: bool

    @property
    def S(self) -> int:  # noqa: N802 - so do C, H and W
        """Pixels of a plane."""
        return self.H * self.W

    @property
    def UH(self) -> int:  # noqa: N802
        """Rows of windows; the last may hang over the edge."""
        return (self.H + 1) // 2

    @property
    def UW(self) -> int:  # noqa: N802
        """Columns of windows; the last may hang over the edge."""
        return (self.W + 1) // 2

    @property
    def OH(self) -> int:  # noqa: N802
        """Rows of the pooled output."""
        return self.H // 2

    @property
    def OW(self) -> int:  # noqa: N802
        """Columns of the pooled output."""
        return self.W // 2

    @property
    def units(self) -> int:
        """Units of a plane."""
        return self.UH * self.UW if self.pool else self.S

    @property
    def odd_rows(self) -> bool:
        """Whether the last row of windows hangs over the edge."""
        return self.H % 2 == 1

    @property
    def odd_columns(self) -> bool:
        """Whether the last column of windows hangs over the edge."""
        return self.W % 2 == 1

    @property
    def sigmoid(self) -> bool:
        """Whether the activation is the sigmoid."""
        return self.activation == "sigmoid"

    @property
    def relu(self) -> bool:
        """Whether the activation is the rectifier."""
        return self.activation == "relu"

    @property
    def splits_power(self) -> int:
        """`splits`, rounded up to a power of two."""
        return 1 << (self.splits - 1).bit_length()

    @property
    def real(self) -> tl.dtype:
        """What is calculated in."""
        return tl.float64 if self.double else tl.float32

    @property
    def index(self) -> tl.dtype:
        """What offsets are counted in."""
        return tl.int64 if self.wide else tl.int32

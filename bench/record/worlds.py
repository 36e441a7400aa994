"""The rows of a world: how a step of LeNet is divided over processes, and whose statistics normalize it."""

from __future__ import annotations

ALONE_ALL = "one process, all threads"
ALONE = "one process"
"""With the threads that each process of the world has; and so is every row below."""

OF_ONE = "one process in DDP"
LOCAL = "local"
"""In all processes, each normalizing its part of the batch by that part's statistics."""

SYNCHRONIZED = "synchronized"
TORCHS = "torch.nn.SyncBatchNorm"
SUMS = "two all_reduce, E[x²] - E[x]²"

IN_ONE = (ALONE_ALL, ALONE, OF_ONE)
"""In process 0, while the others wait."""

OF_THE_WHOLE_BATCH = (*IN_ONE, SYNCHRONIZED, TORCHS, SUMS)
"""Whose steps are those of one process with the whole batch."""

STRONG, WEAK = "strong", "weak"
"""Scaling: one batch for all processes together, and one for each."""

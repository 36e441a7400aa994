"""One policy for the C library's memory allocator, the same for every implementation that is measured.

By default glibc gives large freed blocks back to the system, and takes them again for the next tensor of
that size; each page then faults on first use, about 2 µs apiece. Whether that happens in a training step
depends on the history of the process, so without a policy the same step takes a different time from one
process to the next.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import sys

import torch

# From glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3

_MIB = 1 << 20
# glibc before 2.35 refuses a threshold above half a heap (32 MiB), so that is the second try.
_MMAP_THRESHOLDS_MIB = (1024, 32)
_TOP_PAD_MIB = 64


@functools.cache
def settle() -> str:
    """Set the policy for this process, once, and describe it in a line for every record.

    On Linux with glibc, blocks up to the mmap threshold come from the heap and the heap is never trimmed,
    so freed memory stays with the process and is used again without faults. Elsewhere, and where another
    allocator was preloaded, nothing is changed and the line says so. Call it before the first large tensor.

    Source: mallopt(3); the glibc manual, section 3.2.3.6 "Malloc Tunable Parameters".
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return f"system default ({platform.system()})"
    libc = ctypes.CDLL("libc.so.6")
    if _address(ctypes.CDLL(None)) != _address(libc):
        preloaded = os.path.basename(os.environ.get("LD_PRELOAD", "").replace(":", " ").split(" ")[0])  # noqa: PTH119
        return f"not glibc's malloc ({preloaded or 'replaced'}), left as it is"
    threshold = next((mib for mib in _MMAP_THRESHOLDS_MIB if libc.mallopt(_M_MMAP_THRESHOLD, mib * _MIB)), None)
    done = libc.mallopt(_M_TRIM_THRESHOLD, -1) and libc.mallopt(_M_TOP_PAD, _TOP_PAD_MIB * _MIB)
    if threshold is None or not done:
        return "system default (glibc refused mallopt)"
    return f"glibc, mmap threshold {threshold} MiB, never trimmed, top pad {_TOP_PAD_MIB} MiB"


def give_back() -> None:
    """Give the system what this process has freed and, by the policy, would keep.

    Source: malloc_trim(3).
    """
    if is_settled() and chooses():
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def chooses() -> bool:
    """Whether there is a policy to choose here: `settle`, which this calls, has set one."""
    return settle().startswith("glibc, ")


def is_settled() -> bool:
    """Whether the policy of this process has been set."""
    return settle.cache_info().currsize > 0


def _address(library: ctypes.CDLL) -> int | None:
    return ctypes.cast(library.malloc, ctypes.c_void_p).value

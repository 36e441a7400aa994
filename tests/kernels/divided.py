"""`cpu_fused` with its work divided over threads however little there is, whichever way leads to its kernels."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from kernels.cpu_fused import NODE, kernel_calls


@contextmanager
def divided(elements: int = 1) -> Iterator[None]:
    """Inside, a thread gets no more elements than these."""
    usual = kernel_calls.ELEMENTS_PER_THREAD
    NODE.wait()
    with mock.patch.object(kernel_calls, "ELEMENTS_PER_THREAD", elements):
        kernel_calls.plan_of.cache_clear()
        if NODE.module:
            NODE.module.divide(elements)
        yield
    kernel_calls.plan_of.cache_clear()
    if NODE.module:
        NODE.module.divide(usual)

"""The memory that a training step of LeNet keeps for its backward, and its peak.

Both are counts, not times: they depend on the batch size, the versions and the device, and hardly on other programs. So
one step suffices, without rounds or pairs.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile  # torch.profiler's imports torch's compiler, which takes seconds

from bench.measure import epochs
from bench.measure.context import Context
from bench.measure.figures import Figures, WrongError
from bench.measure.ledger import Ledger
from bench.measure.parts import step_mark, watch
from bench.measure.step import SETTINGS
from bench.measure.verification import State, state_of, why_no_step
from kernels import Implementation
from models.device import synchronize
from models.fashion_mnist import FashionMNIST
from models.lenet import lenet
from models.step import Totals, cross_entropy, descend, gather, take_step

BATCH_SIZES = (64, 128, 256, 512, 1024)
QUICK_BATCH_SIZES = (64, 256)
SHOWN_BATCH_SIZE = SETTINGS.batch_size
"""The lesson's batch size, at which the parts are listed."""

WARM_UP_STEPS = 2
ALLOCATION = "[memory]"
"""The profiler's name for an allocation (its bytes are positive) or a release (negative)."""


# Memory kept for the backward


def saved(implementation: Implementation | None, data: FashionMNIST, batch_size: int) -> list[dict[str, Any]]:
    """Bytes that a training forward of LeNet keeps for its backward, by where the step was when they were saved.

    The batch counts, for the first convolution that keeps it; parameters and buffers don't. The output of a block
    counts for the layer after it, unless the block keeps it itself. Tensors that autograd isn't asked to save
    (attributes of an `autograd.Function`, or those packed by an implementation's own hooks) are not counted.

    Args:
        implementation: Fills LeNet's slots; None is LeNet without batch norm.
        data: Its first images are the batch.
        batch_size: How many.

    Returns:
        Rows {"part", "child", "bytes"} as `Ledger.rows` has them; the loss is in the child "".

    Raises:
        ValueError: There are fewer images.
        WrongError: The gradients computed from the kept tensors are wrong.
    """
    batch, device = _first(data, batch_size), data.train_images.device
    model, ledger = lenet(implementation, seed=SETTINGS.seed, device=device), Ledger()
    watch(model, ledger.enter)
    mark = step_mark(ledger.enter)
    before = state_of(model)
    images, labels = gather(model, data, batch)
    with ledger.hooks():
        output = model(images)
        mark("loss")
        loss = cross_entropy(output, labels)
    rows = ledger.rows([*model.parameters(), *model.buffers()])
    loss.backward()  # from the kept tensors alone, which proves that they are complete
    descend(list(model.parameters()), SETTINGS.lr)
    _check(before, model, batch, data, implementation)
    return rows


def _check(
    before: State, model: nn.Module, batch: Tensor, data: FashionMNIST, implementation: Implementation | None
) -> None:
    if reason := why_no_step(before, state_of(model), [batch], data, implementation, SETTINGS.lr):
        raise WrongError(f"wrong in the step whose memory was counted: {reason}")


# Peak memory


def peak_bytes(implementation: Implementation | None, data: FashionMNIST, batch_size: int) -> int | None:
    """The peak memory of a training step, above the memory in use before it; see `most_in_use`.

    Args:
        implementation: Fills LeNet's slots; None is LeNet without batch norm.
        data: Its first images are the batch.
        batch_size: How many.

    Returns:
        Bytes; None on a device whose allocator doesn't report them.

    Raises:
        ValueError: There are fewer images.
        WrongError: The step that was watched didn't train.
    """
    batch, device = _first(data, batch_size), data.train_images.device
    model = lenet(implementation, seed=SETTINGS.seed, device=device)
    parameters, totals = list(model.parameters()), Totals(device)

    def step() -> None:
        take_step(model, parameters, data, batch, SETTINGS.lr, totals)

    for _ in range(WARM_UP_STEPS):
        step()
    before = state_of(model)
    most = most_in_use(step, device)
    _check(before, model, batch, data, implementation)
    return most


def most_in_use(run: Callable[[], object], device: torch.device) -> int | None:
    """The peak of torch's allocator during `run`, in bytes above those in use before it.

    Memory that a C or C++ library allocates by itself isn't counted. Memory that it requests from torch is, such as
    the copies that convolutions make in their own layout. On a GPU each tensor counts in units of
    the allocator (512 bytes). On the CPU, releasing a tensor from before `run` doesn't lower the count: the profiler
    doesn't know its size.

    Returns:
        Bytes; None where the device's allocator doesn't report them (MPS).
    """
    if device.type == "cpu":
        with profile(profile_memory=True, acc_events=True) as profiler:
            run()
        return max(itertools.accumulate(_allocations(profiler), initial=0))
    memory = torch.get_device_module(device)
    if not hasattr(memory, "max_memory_allocated"):
        return None
    gc.collect()  # garbage collected during `run` would look like memory that it frees
    synchronize(device)
    before = memory.memory_allocated(device)
    memory.reset_peak_memory_stats(device)
    run()
    synchronize(device)
    return int(memory.max_memory_allocated(device) - before)


def _allocations(profiler: profile) -> list[int]:
    """Bytes of all allocations and, negative, releases, in order of time."""
    results: Any = profiler.kineto_results  # torch's type stubs don't know all that an event has
    events = [event for event in results.events() if event.name() == ALLOCATION]
    return [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]


# Both, for the record


def measure(implementation: Implementation | None, context: Context, batch_sizes: Sequence[int]) -> Figures:
    """The memory that a step keeps, and its peak.

    Returns:
        "batches", for each batch size the bytes saved and the peak; "saved", the rows of the parts at the batch size
        "saved_batch": the lesson's, or the middle one where that isn't among them.
    """
    # Peaks first, so that torch.compile compiles in a plain step, without hooks.
    peaks = {size: peak_bytes(implementation, context.data, size) for size in batch_sizes}
    rows = {size: saved(implementation, context.data, size) for size in batch_sizes}
    shown = SHOWN_BATCH_SIZE if SHOWN_BATCH_SIZE in rows else batch_sizes[len(batch_sizes) // 2]
    return {
        "backend": epochs.backend(implementation, context.device),
        "saved": rows[shown],
        "saved_batch": shown,
        "batches": [
            {"batch_size": size, "saved_bytes": sum(row["bytes"] for row in rows[size]), "peak_bytes": peaks[size]}
            for size in batch_sizes
        ],
    }


def _first(data: FashionMNIST, batch_size: int) -> Tensor:
    """Indices of the first training images, (N,), on their device.

    Raises:
        ValueError: There are fewer images.
    """
    images = len(data.train_images)
    if images < batch_size:
        raise ValueError(f"{images} images are fewer than a batch of {batch_size}")
    return torch.arange(batch_size, device=data.train_images.device)

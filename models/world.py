"""The processes that train one network together: how they divide a batch, and add what each has counted.

All of them hold all images, and take contiguous shards of the same batches. A batch may leave shards of different
sizes, or none for a process: `models/step.py` weights losses by them, so that the mean of all processes' gradients
is the gradient of the whole batch's mean.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kernels import BatchNorm

# No step reads running statistics, so none needs to send them as DDP would by default: see `World.share_buffers`. The
# first name, from torch 2.14 or so on, deprecates the other.
_BUFFERS_STAY: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)


@dataclass(frozen=True)
class World:
    """The processes of torch's default group; see `models/torchrun.py` for how they meet.

    Attributes:
        rank: Which of them this one is, from 0.
        size: How many they are; 1 needs no process group.
    """

    rank: int = 0
    size: int = 1

    def shard(self, batch: Tensor) -> Tensor:
        """Return this process's part of the first dimension, as `torch.tensor_split` divides it; it may be empty."""
        return batch if self.size == 1 else torch.tensor_split(batch, self.size)[self.rank]

    def sum(self, own: Tensor) -> Tensor:
        """Return the sum of what all processes have; a collective."""
        if self.size == 1:
            return own
        every = own.clone()
        dist.all_reduce(every)
        return every

    def data_parallel(self, model: nn.Module) -> nn.Module:
        """Return `model` in torch's own wrapper that averages gradients, with the weights of process 0; a collective.

        The first wrapper that is built makes torch import its compiler, which takes seconds: keep it out of a clock.
        """
        if self.size == 1:
            return model
        self.share_buffers(model)
        return in_ddp(model)

    def share_buffers(self, model: nn.Module) -> None:
        """Give all processes the buffers of process 0; a collective.

        Running statistics of local batch norm are those of a process's own shards. DDP by default evaluates with those
        of process 0, and so does this. Synchronized ones are the same everywhere.
        """
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def check_shards(self, model: nn.Module, batch_size: int) -> None:
        """Refuse shards that are too small for a batch norm of their own.

        Raises:
            ValueError: A batch of `batch_size` leaves a process less than two images, and `model` has batch norm that
                isn't synchronized.
        """
        smallest = batch_size // self.size
        if self.size > 1 and smallest < 2 and any(map(_is_local, model.modules())):
            raise ValueError(
                f"a batch of {batch_size} images leaves one of {self.size} processes {smallest}, and local batch norm"
                " needs two: synchronize it, or choose another limit or batch size"
            )


ALONE = World()
"""One process, which has whole batches."""


def _is_local(layer: nn.Module) -> bool:
    return isinstance(layer, BatchNorm) and layer.process_group is None


def in_ddp(model: nn.Module, group: Any = None) -> DistributedDataParallel:
    """`model` in torch's own wrapper, which leaves buffers alone; a collective of the group's processes."""
    return DistributedDataParallel(model, process_group=group, **_BUFFERS_STAY)

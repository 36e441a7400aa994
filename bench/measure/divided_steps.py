"""The steps of one row of a world: this process's part of each batch, in the network that all of them train."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from torch import Tensor, nn

import kernels
from bench.measure.step import EPOCH, SETTINGS
from bench.measure.synchronized_peers import SumsSlot, TorchsSlot
from bench.measure.verification import State, state_of, why_no_step, why_not_divided
from bench.record.worlds import ALONE_ALL, IN_ONE, OF_ONE, OF_THE_WHOLE_BATCH, SUMS, SYNCHRONIZED, TORCHS, WEAK
from models import binding
from models.fashion_mnist import FashionMNIST
from models.lenet import lenet
from models.step import Totals, take_step
from models.training import shuffled
from models.world import ALONE, World, in_ddp


@dataclass(frozen=True)
class Row:
    """What is timed in a world.

    Attributes:
        implementation: Its name.
        way: One of `bench/record/worlds.py`.
        scaling: `STRONG` or `WEAK`.
        again: Whether it is the same as a row before it, to see what identical ones differ by.
    """

    implementation: str
    way: str
    scaling: str
    again: bool = False

    @property
    def text(self) -> str:
        """In a message."""
        return f"{self.implementation}, {self.way}, {self.scaling}"


@dataclass
class Judged:
    """The sample that is judged: the state before it, its batches, and the state after it."""

    before: State
    batches: list[Tensor]
    after: State | None = None


def first_images(data: FashionMNIST, images: int) -> FashionMNIST:
    """The images that an epoch begins with, in its order, on the host."""
    order = shuffled(len(data.train_images), SETTINGS.seed, EPOCH)[:images]
    of_order = order.to(data.train_images.device)
    return replace(
        data,
        train_images=data.train_images.index_select(0, of_order).cpu(),
        train_labels=data.train_labels.index_select(0, of_order).cpu(),
        test_images=data.test_images[:0].cpu(),
        test_labels=data.test_labels[:0].cpu(),
    )


class DividedSteps:
    """A network in training, paused between two steps.

    Args:
        row: What is timed.
        data: The images, in the order in which they are used.
        device: Of this process.
        threads: Of each process.
        all_threads: Of process 0 where it has the machine to itself.
    """

    def __init__(self, row: Row, data: FashionMNIST, device: torch.device, threads: int, all_threads: int) -> None:
        self.row = row
        self._world = ALONE if row.way in IN_ONE else World(dist.get_rank(), dist.get_world_size())
        self._takes_part = row.way not in IN_ONE or dist.get_rank() == 0
        self._threads = all_threads if row.way == ALONE_ALL else threads
        self._cores = binding.share(
            *((0, 1) if row.way == ALONE_ALL else (dist.get_rank(), dist.get_world_size())), device
        )
        # Every process of the default group makes every group.
        group = dist.new_group([0]) if row.way == OF_ONE else None
        if not self._takes_part:
            return
        self._data = replace(data, train_images=data.train_images.to(device), train_labels=data.train_labels.to(device))
        size = SETTINGS.batch_size * (dist.get_world_size() if row.scaling == WEAK else 1)
        self._batches = itertools.cycle(torch.arange(len(data.train_images), device=device).split(size))
        self._chosen: list[Tensor] = []
        self._judged: Judged | None = None
        self._totals = Totals(device)
        self.model = _network(row, device)
        self._parameters = list(self.model.parameters())
        if row.way == OF_ONE:
            self._module: nn.Module = in_ddp(self.model, group)
        else:
            self._module = self._world.data_parallel(self.model)

    @property
    def meets_others(self) -> bool:
        """Whether its steps have collectives of several processes."""
        return self.row.way not in IN_ONE

    def prepare(self, iterations: int, *, judge: bool = False) -> None:
        """Choose the next batches, and take an untimed step so that caches and threads are this row's.

        Args:
            iterations: Steps of the sample.
            judge: Whether it is the one that is judged.
        """
        if not self._takes_part:
            return
        self.step_once()
        self._chosen = [next(self._batches) for _ in range(iterations)]
        if judge:
            self._judged = Judged(state_of(self.model), self._chosen)

    def run(self) -> None:
        """Take the chosen steps."""
        if self._takes_part:
            for batch in self._chosen:
                take_step(
                    self._module, self._parameters, self._data, batch, SETTINGS.lr, self._totals, world=self._world
                )

    def step_once(self) -> None:
        """Take one step on the next batch, with this row's threads and cores, whichever row was before."""
        if self._takes_part:
            binding.bind(self._cores)
            torch.set_num_threads(self._threads)
            self._chosen = [next(self._batches)]
            self.run()

    def end(self) -> None:
        """Note the state after the sample that is judged."""
        if self._takes_part and self._judged and self._judged.after is None:
            self._judged.after = state_of(self.model)

    def why_wrong(self) -> str | None:
        """None, or what is wrong with the sample that is judged; one process looks, and the others have nothing."""
        judge = 0 if self.row.way in IN_ONE else dist.get_world_size() - 1
        if dist.get_rank() != judge or self._judged is None:
            return None
        judged, whole = self._judged, self.row.way in OF_THE_WHOLE_BATCH
        assert judged.after is not None
        norm, lr, processes = kernels.load(self.row.implementation), SETTINGS.lr, self._world.size
        shards = 1 if whole else processes
        wrong = why_no_step(judged.before, judged.after, judged.batches, self._data, norm, lr, shards=shards)
        if wrong or processes == 1:
            return wrong
        return why_not_divided(judged.after, judged.before, judged.batches, self._data, lr, processes, whole)


def _network(row: Row, device: torch.device) -> nn.Sequential:
    """LeNet with the row's batch norms."""
    model = lenet(row.implementation, seed=SETTINGS.seed, device=device)
    if row.way == SYNCHRONIZED:
        kernels.convert_synchronized(model)
    elif row.way in (TORCHS, SUMS):
        slot = TorchsSlot if row.way == TORCHS else SumsSlot
        for name, layer in model.named_children():
            if isinstance(layer, kernels.BatchNorm):
                setattr(model, name, slot(layer).to(device))
    return model

"""What torchrun's restart of its processes leaves: the last whole epoch of the same run.

`torchrun --max-restarts N` starts all processes again where one has died. They find their checkpoint in the cache, by
the name that torchrun gives a run, and by the settings: so no two trainings meet in one file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict

from torch import nn

from kernels.cache import cache_dir
from models import checkpoint, torchrun
from models.training import Epoch
from models.world import World


class Kept:
    """The checkpoint of a run, which process 0 writes and reads; there is none where torchrun didn't start this."""

    def __init__(self, settings: Mapping[str, object], world: World, announce: Callable[[str], object]) -> None:
        """`settings` are all that a training depends on, as JSON has them; `announce` is told what can't be written."""
        self._settings, self._world, self._announce = dict(settings), world, announce
        run = {"run": torchrun.run_id(), **settings}
        digest = hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()
        self._path = cache_dir() / "trainings" / f"{digest[:32]}.pt"
        self._writes = torchrun.run_id() is not None and world.rank == 0

    def restore(self, model: nn.Module) -> Epoch | None:
        """The last whole epoch before a restart, a collective; in process 0, `model` gets its weights."""
        content = checkpoint.load(self._path) if self._writes and torchrun.restarts() else None
        if content is not None:
            model.load_state_dict(content["model"])
        figures = torchrun.first_says(self._world, content and content["epoch"])
        return Epoch(**figures) if figures else None

    def save(self, model: nn.Module, epoch: Epoch) -> None:
        """Keep the weights after an epoch, and its outcome."""
        if not self._writes:
            return
        content = {"settings": self._settings, "epoch": asdict(epoch), "model": model.state_dict()}
        try:
            checkpoint.save(self._path, content)
        except (OSError, RuntimeError) as error:  # torch's own, of a full disk
            self._announce(f"no checkpoint of epoch {epoch.number}: {str(error).splitlines()[0]}")

    def forget(self) -> None:
        """Remove the checkpoint of a finished training."""
        if self._writes:
            checkpoint.forget(self._path)

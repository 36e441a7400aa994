"""How the processes that torchrun starts become a world: they meet, agree on errors, and part.

Another launcher that sets `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT` does as well.
Source: https://docs.pytorch.org/docs/stable/elastic/run.html (environment variables).
"""

from __future__ import annotations

import os
import re
import time
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from models import binding, device, gloo
from models.world import ALONE, World

SECONDS = 45.0
"""How long a process waits for another that doesn't come or doesn't answer: with its start, it ends within a minute."""
FIRST_SPEAKS_SECONDS = 5.0
"""How long another process that fails lets the first one fail and say why."""
LET_GO_SECONDS = 0.1
"""How long threads of gloo may take to let go of tensors. With 0.1 ms none of 10 runs was aborted, without 4 of 8."""
WORDS = {
    "by peer": "lost the connection to another process",
    "Timed out": "waited in vain for another process",
}
"""For a part of gloo's message, which also says where in its source it was raised."""

T = TypeVar("T")


class GroupError(Exception):
    """The processes didn't meet; the message is one line that says why."""


def is_first() -> bool:
    """Whether this process speaks for all: process 0, or one that was started alone."""
    return os.environ.get("RANK", "0") == "0"


def let_the_first_speak() -> None:
    """Wait before this process fails, if it isn't the first: without that, torchrun might end the first one in silence.

    When the first one fails as well, torchrun ends this one meanwhile; else it has something to say of its own.
    """
    if not is_first():
        time.sleep(FIRST_SPEAKS_SECONDS)


def restarts() -> int:
    """How often torchrun has restarted its processes (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def run_id() -> str | None:
    """The name of this run, the same after a restart; None where torchrun didn't start this process."""
    return os.environ.get("TORCHELASTIC_RUN_ID")


def why_slow(place: torch.device) -> str | None:
    """None, or in one line why a time that is measured here says little."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    cores = device.cores()
    if place.type == "cpu" and processes > cores:
        return f"{processes} processes share {cores} cores: more of them only take longer"
    return None


def own_device(name: str) -> torch.device:
    """`device.select`, a GPU for each of the machine's processes.

    Raises:
        ValueError, DeviceUnavailableError: As `device.find`; in all processes, where there are more than GPUs.
    """
    if "LOCAL_RANK" not in os.environ or ":" in name or device.find(name).type in ("cpu", "mps"):
        return device.select(name)
    device.find(f"{name}:{int(os.environ.get('LOCAL_WORLD_SIZE', '1')) - 1}")
    return device.select(f"{name}:{os.environ['LOCAL_RANK']}")


def join(place: torch.device) -> World:
    """Meet the other processes, if there are any.

    Args:
        place: Where this process trains; it chooses how the group communicates.

    Raises:
        GroupError: A process doesn't come, the port is in use, or torch can't communicate between such devices.
    """
    if "WORLD_SIZE" not in os.environ or os.environ["WORLD_SIZE"] == "1":
        return ALONE
    if not dist.is_available():
        raise GroupError(f"torch {torch.__version__} is built without process groups")
    # Who waits for process 0 to listen tries twice, with a pause between: that is torch's own.
    seconds = SECONDS if is_first() else 0.4 * SECONDS
    try:
        meeting = dist.rendezvous("env://", timeout=timedelta(seconds=seconds))  # type: ignore[attr-defined]
        store, rank, size = next(meeting)
        if os.environ.get("GROUP_WORLD_SIZE", "1") == "1":
            # One machine's torchrun keeps its store over a restart, and in it the addresses of processes that are gone.
            # Those of several machines don't count their restarts alike.
            store = dist.PrefixStore(f"start {restarts()}", store)  # type: ignore[attr-defined]
        dist.init_process_group(
            dist.get_default_backend_for_device(place),
            store=store,
            rank=rank,
            world_size=size,
            timeout=timedelta(seconds=SECONDS),
            device_id=place if place.index is not None and place.type != "cpu" else None,
        )
        cores = binding.share_of_launched(place)
    except (RuntimeError, ValueError) as error:  # torch's own for networks and stores are RuntimeErrors
        raise GroupError(f"the processes didn't meet: {_first_line(error)}") from error
    binding.bind(cores)
    gloo.step_back(cores)
    return World(rank, size)


def agree(world: World, problem: T | None) -> T | None:
    """Return the problem of the first process that has one, in all of them; a collective."""
    if world.size == 1:
        return problem
    every: list[T | None] = [None] * world.size
    dist.all_gather_object(every, problem)
    return next((each for each in every if each is not None), None)


def first_says(world: World, thing: T) -> T:
    """Return what process 0 has, in all of them; a collective."""
    things = [thing]
    if world.size > 1:
        dist.broadcast_object_list(things, 0)
    return things[0]


def part() -> None:
    """Leave the group, so that this process may end.

    Who has just heard that a collective is over may end before gloo's thread has let go of its tensors. For that the
    thread needs the interpreter, and where that is on its way out, it aborts the process: so it is given the time. The
    group's own end doesn't wait for its threads while something of torch's holds it, as `DistributedDataParallel` does.

    Source: https://github.com/pytorch/pytorch/issues/190489.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(LET_GO_SECONDS)


def why_lost(error: BaseException) -> str | None:
    """None, or in one line what a collective says of a process that is gone or doesn't answer."""
    # gloo's errors have no type of their own, but the name of the file that raises.
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error)):
        return in_words(str(error)) or f"another process is gone or doesn't answer: {_first_line(error)}"
    return None


def in_words(said: str) -> str | None:
    """None, or in short what gloo says, in a message of any length, of a process that is gone or doesn't answer."""
    return next((words for text, words in WORDS.items() if text in said), None)


def _first_line(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = re.sub(r"^\[[^]]*/[^]]*\] *", "", line)  # the file that raises
    return re.sub(r"\.? This is typically caused by .*", "", line)  # gloo's advice

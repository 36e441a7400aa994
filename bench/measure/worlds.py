"""Start a world: processes that work together, launched by `torch.distributed`'s elastic agent as `torchrun` does."""

from __future__ import annotations

import logging
import math
import os
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from bench.measure.figures import PlainError
from models import allocator, torchrun

MEETING_SECONDS = 20
"""The longest that processes wait for each other, at first and in each collective: for one that has died or stopped."""

USUAL = (2, 4, 8)
"""More take longer to start than all of them to measure."""

START = "spawn"
"""How `multiprocessing` starts them."""

CAUSE_SECONDS = 1.0
"""The launcher reports the first process that fails: this long, it can be the one that the others lose."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def backend_of(device: torch.device) -> str:
    """The library that processes meet by."""
    return "nccl" if device.type == "cuda" else "gloo"


def why_none(device: torch.device, processes: int) -> str | None:
    """None, or why there can be no such world here."""
    if not dist.is_available():
        return "torch was built without torch.distributed"
    if device.type not in ("cpu", "cuda"):
        return f"torch.distributed has no backend that the suite knows for {device.type}"
    if device.type == "cuda":
        if not dist.is_nccl_available():
            return "torch was built without NCCL"
        if processes > torch.cuda.device_count():
            return f"{processes} processes need a GPU each, and there are {torch.cuda.device_count()}"
    return None if dist.is_gloo_available() else "torch was built without gloo"


def usual(device: torch.device, cores: int, *, quick: bool) -> list[int]:
    """The worlds that are measured unasked, as far as there is a core or GPU for each process; none without backend."""
    most = {"cpu": cores, "cuda": torch.cuda.device_count()}.get(device.type, 0)
    return [processes for processes in (USUAL[:1] if quick else USUAL) if processes <= most]


def gather(
    function: Callable[..., Any],
    processes: int,
    device: torch.device,
    *arguments: Any,
    seconds: float = MEETING_SECONDS,
) -> list[Any]:
    """What a function returns in each process of a world that lasts as long as the call.

    Args:
        function: Of a module; called with the device of its process and the arguments, in the default process group.
        processes: How many.
        device: On a GPU each process has one of its own.
        arguments: They are pickled.
        seconds: The longest that processes wait for each other.

    Returns:
        By rank.

    Raises:
        PlainError: A process raised, died, or didn't answer the others; which and why, in one line.
    """
    # not at import: the launcher takes a second to import, and every run of the main job imports this module
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="bnbench") as logs, _own_signals(), _quiet():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            rdzv_configs={"join_timeout": math.ceil(seconds), "read_timeout": math.ceil(seconds)},
            local_addr="127.0.0.1",
            max_restarts=0,
            start_method=START,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        try:
            by_rank = elastic_launch(config, _process)(function, device.type, arguments, seconds)
        except SignalException as error:
            ended_by = error.sigval
        except ChildFailedError as error:
            raise PlainError(_in_one_line(error, processes)) from None
        else:
            return [by_rank[rank] for rank in range(processes)]
    signal.raise_signal(ended_by)  # to the handler that was there before the launcher's
    raise KeyboardInterrupt


def _in_one_line(error: Any, processes: int) -> str:
    """The first failure: the others fail because of it."""
    rank, failure = error.get_first_failure()
    where = f"process {rank} of {processes}"
    if failure.exitcode < 0:
        return f"{where} was ended by {signal.Signals(-failure.exitcode).name}"
    said = failure.message if isinstance(failure.message, str) else str(failure.message.get("message", ""))
    if words := torchrun.in_words(said):
        return f"{where}: {words}"
    if not said.strip() or said.startswith("To enable traceback"):
        return f"{where} ended with exit code {failure.exitcode}"
    return f"{where}: {said.strip().splitlines()[0]}"


@contextmanager
def _own_signals() -> Iterator[None]:
    """The launcher leaves its handlers behind."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """The launcher logs a failure that the caller gets as an exception."""
    loggers = [logging.getLogger(name) for name in ("torch.distributed.elastic", "torch.multiprocessing")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _process(function: Callable[..., Any], device_type: str, arguments: tuple[Any, ...], seconds: float) -> Any:
    """One process of the world."""
    allocator.settle()  # the memory policy that every measurement has
    device = torch.device(device_type)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group(backend_of(device), timeout=timedelta(seconds=seconds))
    try:
        answer = function(device, *arguments)
    except RuntimeError as error:
        if torchrun.why_lost(error):
            time.sleep(CAUSE_SECONDS)
        raise
    torchrun.part()
    return answer

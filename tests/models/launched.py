"""Worlds that torchrun's own launcher starts: what they train is left in a folder.

python -m tests.models.launched FOLDER

Workers are forked from this process, which has imported the compiler that torch's wrapper asks for: else each of them
would take seconds for it.
"""

import contextlib
import importlib
import os
import signal
import sys
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

import kernels
from models import checkpoint, torchrun
from models.fashion_mnist import EMBEDDED, load
from models.lenet import lenet
from models.training import Settings, evaluate, train
from models.training import __main__ as training_cli
from models.world import ALONE

# Implementation, synchronized, type, training images, batch size. Three processes have uneven shards, and in a last
# batch of two images one has none.
CASES = {
    "whole batches": ("naive", True, torch.float64, 768, 256),
    "fused": ("cpu_fused", True, torch.float32, 768, 256),
    "an empty shard": ("naive", True, torch.float64, 258, 256),
    "uneven, without batch norm": (None, False, torch.float64, 200, 64),
    "local": ("naive", False, torch.float64, 768, 256),
}
COMMAND = ["--sync", "--epochs", "3", "--batch-size", "128", "--data-dir", str(EMBEDDED), "--limit", "512"]


def outcome(case, world=ALONE):
    """What an epoch of a case gives: the losses at the lesson's points, the test accuracy, and the weights."""
    norm, synchronized, dtype, images, batch_size = CASES[case]
    network, data = lenet(norm, seed=0, dtype=dtype), load(EMBEDDED, limit=images)
    if synchronized:
        kernels.convert_synchronized(network)
    steps = []
    [epoch] = train(network, data, Settings(epochs=1, batch_size=batch_size), on_step=steps.append, world=world)
    return {
        "losses": [step.train_loss for step in steps],
        "correct": [step.train_accuracy for step in steps],
        "test": epoch.test_accuracy,
        "test alone": evaluate(network, data),
        "state": network.state_dict(),
    }


def solve(folder):
    """A process of a world that goes through all cases."""
    world = torchrun.join(torch.device("cpu"))
    torch.save({case: outcome(case, world) for case in CASES}, folder / f"{world.rank}.pt")
    torchrun.part()


def command(norm, folder, event=None):
    """A process of the command line, to one of which something happens in the second epoch, before any restart."""
    os.environ["BNBENCH_CACHE"] = str(folder)
    checkpoint.forget = lambda _: None  # to be looked at
    stopped = folder / "stopped"
    if event == signal.SIGSTOP:
        torchrun.SECONDS = 8.0

    def train_until(*arguments, on_step, **others):
        def step(where):
            on_step(where)
            if event and os.environ["RANK"] == "1" and where.epoch == where.step == 2 and not torchrun.restarts():
                stopped.write_text(str(os.getpid()))
                os.kill(os.getpid(), event)

        return train(*arguments, on_step=step, **others)

    training_cli.train = train_until
    code = training_cli.main(["--norm", norm, *COMMAND])
    (folder / f"code of {os.environ['RANK']}").write_text(str(code))
    if event == signal.SIGSTOP:
        os.kill(int(stopped.read_text()), signal.SIGKILL)  # torchrun would wait for half a minute before it does so
    raise SystemExit(code)


def launch(folder, processes, restarts, entrypoint, *arguments):
    """Start a world, and leave what it prints and how it ended."""
    folder.mkdir()
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        max_restarts=restarts,
        start_method="fork",
        monitor_interval=0.05,
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs"), redirects=Std.ALL),
    )
    with contextlib.suppress(ChildFailedError):
        elastic_launch(config, entrypoint)(*arguments)


def main(folder):
    """All worlds, one after another."""
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")
    launch(folder / "solved", 3, 0, solve, folder / "solved")
    for name, norm, restarts, event in [
        ("undisturbed", "naive", 1, None),
        ("killed", "naive", 1, signal.SIGKILL),
        ("stopped", "naive", 0, signal.SIGSTOP),
        ("refused", "builtin", 0, None),
    ]:
        launch(folder / name, 2, restarts, command, norm, folder / name, event)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""`python -m bench.tune_triton`: find the warps and programs that `triton_fused` runs fastest with on this GPU.

Each shape's training step of the block is captured as a CUDA graph with every choice and timed in turns with the
default; a choice that is not clearly faster is not kept. Every trial has running statistics of its own, and nothing is
tuned while a network runs. Writes the table beside the kernels, for this device only, after each shape.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from typing import Any

import torch

from bench.measure import device_timing
from bench.measure.cases import problem_of
from bench.measure.figures import one_line
from bench.measure.operands import Operands
from bench.measure.subjects import Workload
from bench.record.operations import BOTH, Operation, operations
from bench.stats.ratios import Ratio
from kernels import load
from models import device as devices

FAILED, UNAVAILABLE = 1, 4
LEAST_GAIN = 0.02
SEED = 20150213


class DeadDeviceError(Exception):
    """This process can no longer use the device."""


def better(ratios: dict[tuple[int, int], Ratio]) -> tuple[int, int] | None:
    """The fastest of the choices whose whole interval lies below the default's time."""
    gains = {choice: ratio.value for choice, ratio in ratios.items() if ratio.high < 1 - LEAST_GAIN}
    return min(gains, key=lambda choice: gains[choice], default=None)


def tune(operation: Operation, device: torch.device) -> tuple[str, tuple[int, int] | None]:
    """The key of an operation in the table, and the better choice for it, if there is one.

    A choice that fails is left out, and named.

    Raises:
        DeadDeviceError: After its failure, nothing runs on this device.
    """
    from kernels.triton_fused import plan

    implementation = load("triton_fused")
    problem = problem_of(operation, device=device)
    n, c, *space = operation.shape
    height, width = space if len(space) == 2 else (1, torch.Size(space).numel())
    shape = (n, c, height, width)
    pool, planes = operation.pool is not None, bool(space)
    key = plan.key(shape, planes, pool, torch.float32, operation.residual)
    machine = plan.machine_of(device)
    if plan.is_resident(shape, planes, pool, torch.float32, machine):
        return key, None
    table = plan._table().setdefault(machine.name, {})
    before = table.pop(key, None)

    operands = Operands(problem)

    def workload(choice: tuple[int, int]) -> Workload:
        table[key] = list(choice)
        plan.divide.cache_clear()
        made = Workload(implementation, operands)
        made.subject(BOTH)(1)()
        return made

    ratios: dict[tuple[int, int], Ratio] = {}
    default = (plan.Choice().warps, plan.Choice().programs)
    try:
        for choice in itertools.product((4, 8, 16), (2, 4, 8)):
            if choice == default:
                continue
            try:
                sides = [device_timing.replay(workload(side).subject(BOTH), device) for side in (choice, default)]
                ratios[choice] = device_timing.ratio_in_pairs(sides, SEED)
            except Exception as error:
                print(f"{key}: {_text(choice)}: left out: {one_line(error)}", file=sys.stderr)
                _check_alive(device)
    finally:
        table.pop(key, None)
        if before:
            table[key] = before
        plan.divide.cache_clear()
    return key, better(ratios)


def _text(choice: tuple[int, int] | None) -> str:
    return "default" if choice is None else f"{choice[0]} warps, {choice[1]} programs"


def _check_alive(device: torch.device) -> None:
    """Errors of kernels are permanent: every later call on the device raises the same."""
    try:
        torch.cuda.synchronize(device)
    except Exception as error:
        raise DeadDeviceError(one_line(error)) from error


def _write(table: dict[str, Any]) -> None:
    """Replace the whole table at once: other processes read either the old or the new one."""
    from kernels.triton_fused import plan

    new = plan.TABLE.with_suffix(".new")
    new.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    new.replace(plan.TABLE)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser("python -m bench.tune_triton", description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cuda", help="cuda or rocm (default: cuda)")
    options = parser.parse_args(argv)
    try:
        device = devices.find(options.device)
        if missing := load("triton_fused").why_unavailable(device):
            raise devices.DeviceUnavailableError(missing)
    except (devices.DeviceUnavailableError, ValueError) as error:
        print(f"python -m bench.tune_triton: error: {error}", file=sys.stderr)
        return UNAVAILABLE
    if device.type != "cuda":
        print(f"python -m bench.tune_triton: error: nothing is tuned on {device.type}", file=sys.stderr)
        return UNAVAILABLE
    from kernels.triton_fused import plan

    name = plan.machine_of(device).name
    choices = dict(plan._table().get(name, {}))  # what is not reached stays as it was
    with torch.cuda.device(device):
        for operation in operations(gpu=True):
            try:
                key, choice = tune(operation, device)
            except DeadDeviceError as error:
                print(f"python -m bench.tune_triton: error: the device is lost: {error}", file=sys.stderr)
                return FAILED
            print(f"{key}: {_text(choice)}", file=sys.stderr)
            choices.pop(key, None)
            if choice:
                choices[key] = list(choice)
            _write({**plan._table(), name: choices})
    print(f"wrote {plan.TABLE.name}: {len(choices)} choices other than the default")
    return 0


if __name__ == "__main__":
    sys.exit(main())

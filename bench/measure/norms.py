"""The batch norms of any network: at which shapes it calls them, what follows, and their part of a step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.measure.context import Context
from bench.measure.epochs import backend
from bench.measure.figures import Figures
from bench.measure.network_steps import Steps
from bench.record.operations import BLOCKS, CHANNELS_LAST, CONTIGUOUS, Block, Operation
from kernels import Implementation, convert
from kernels.changes import Report
from kernels.conversion import Swapped
from models.networks import Network, NetworkSpec

PROFILED_STEPS = 3


@dataclass
class Use:
    """Where a network calls batch norms of one kind.

    Attributes:
        operation: Shape and block.
        names: Of the layers, once for each call.
    """

    operation: Operation
    names: list[str] = field(default_factory=list)


def uses(network: Network, implementation: Implementation) -> tuple[list[Use], Report]:
    """The batch norms of a network by shape and block, in the order of their first call, and how they were converted.

    Args:
        network: It stays as it is.
        implementation: To convert it with.
    """
    module, report = convert(copy.deepcopy(network.module), implementation)
    by_operation: dict[Operation, Use] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
            assert isinstance(layer, Swapped)
            operation = _operation(layer, *arguments)
            by_operation.setdefault(operation, Use(operation)).names.append(name)

        return hook

    for name, layer in module.named_modules():
        if isinstance(layer, Swapped):
            layer.register_forward_pre_hook(note(name))
    with torch.no_grad():
        module(*network.inputs)
    return list(by_operation.values()), report


def _operation(layer: Swapped, x: Tensor, residual: Any = None) -> Operation:
    block = Block(residual is not None, layer.activation, layer.pool)
    name = next(name for name, known in BLOCKS.items() if known == block)
    last = x.dim() in (4, 5) and not x.is_contiguous()
    return Operation.of(tuple(x.shape), name).laid_out(CHANNELS_LAST if last else CONTIGUOUS)


def survey(implementation: Implementation, context: Context, spec: NetworkSpec) -> Figures:
    """The batch norms of a network, with the part of a step that each of them takes.

    Args:
        implementation: The baseline.
        context: Where.
        spec: The network.
    """
    network = spec.build(context.device)
    listed, report = uses(network, implementation)
    of_shape = shares(network, context.device)
    return {
        "backend": backend(implementation, context.device),
        "uses": [
            {
                "shape": use.operation.shape_text,
                "operation": use.operation.kind,
                "memory_format": use.operation.memory_format,
                "names": use.names,
            }
            for use in listed
        ],
        "shares": of_shape,
        "changes": [vars(change) for change in report.changes],
        "not_fused": report.not_fused,
        "parameters": sum(p.numel() for p in network.module.parameters()),
        "inputs": [list(each.shape) for each in network.inputs],
    }


def shares(network: Network, device: torch.device) -> dict[str, float]:
    """Of a step's time, the part that torch's own batch norm operators take, by shape of their input: (N, C, ...).

    Both ways, by torch's profiler, in operators' own time; what a profiler costs makes small operators look larger.
    """
    steps = Steps(network.module, network.inputs)
    steps.step()
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, record_shapes=True) as profiler:
        for _ in range(PROFILED_STEPS):
            steps.step()
    whole = 0.0
    of_shape: dict[str, float] = {}
    for event in profiler.key_averages(group_by_input_shape=True):
        own = float(event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total)
        whole += own
        if "batch_norm" in event.key and (shape := _first_shape(event.input_shapes)):
            text = "x".join(map(str, shape))
            of_shape[text] = of_shape.get(text, 0.0) + own
    return {shape: own / whole for shape, own in of_shape.items()} if whole else {}


def _first_shape(shapes: Any) -> list[int] | None:
    return next((list(shape) for shape in shapes if len(shape) >= 2), None)

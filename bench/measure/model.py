"""What batch norm costs in any network: its batch norms, and steps and inferences with others in their place.

Both sides of a pair start from the same weights and go through the same input. A step is forward, the mean of the
outputs' squares as a loss, backward and SGD, with a learning rate so small that activations keep their scale.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bench.measure.context import Context
from bench.measure.efforts import Effort, Efforts
from bench.measure.epochs import backend
from bench.measure.figures import Figures, WrongError
from bench.measure.latency import in_pairs
from bench.measure.ledger import Ledger
from bench.measure.timing import Witness, samples
from bench.record.operations import BLOCKS, CHANNELS_LAST, CONTIGUOUS, Block, Operation
from kernels import Implementation, convert
from kernels.changes import Report
from kernels.conversion import Swapped
from models.networks import Network, NetworkSpec, loss_of

EFFORTS = Efforts(
    whole=Effort(seconds=10.0, most_seconds=20.0, least_rounds=10, most_rounds=200),
    gpu=Effort(seconds=1.0, most_seconds=3.0, least_rounds=16, most_rounds=300),
    quick=Effort(seconds=0.5, most_seconds=0.5, least_rounds=6, most_rounds=6),
)
BLOCK_EFFORTS = Efforts(
    whole=Effort(seconds=0.2, most_seconds=0.8, least_rounds=10, most_rounds=400),
    gpu=Effort(seconds=0.1, most_seconds=0.2, least_rounds=10, most_rounds=400),
    quick=Effort(seconds=0.05, most_seconds=0.05, least_rounds=6, most_rounds=20),
)
LR = 1e-4
ALONE_NS = 1_000_000_000
TOLERANCE = 0.25
"""Of a gradient's largest element, as `verification.TOLERANCE` has it."""
OWN_MULTIPLE = 8.0
CHAOS = 0.1
"""Where two right steps differ by more, a step says nothing about who took it; the blocks are judged by themselves."""


@dataclass
class Use:
    """Where a network calls batch norms of one kind.

    Attributes:
        operation: Shape and block.
        names: Of the layers, once for each call.
    """

    operation: Operation
    names: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Calls in a step."""
        return len(self.names)


def uses(network: Network, implementation: Implementation) -> tuple[list[Use], Report]:
    """The batch norms of a network by shape and block, in the order of their first call, and how they were converted.

    Args:
        network: It stays as it is.
        implementation: To convert it with.
    """
    module, report = convert(copy.deepcopy(network.module), implementation)
    found: dict[Operation, Use] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
            assert isinstance(layer, Swapped)
            operation = _operation(layer, *arguments)
            found.setdefault(operation, Use(operation)).names.append(name)

        return hook

    for name, layer in module.named_modules():
        if isinstance(layer, Swapped):
            layer.register_forward_pre_hook(note(name))
    with torch.no_grad():
        module(*network.inputs)
    return list(found.values()), report


def _operation(layer: Swapped, x: Tensor, residual: Any = None) -> Operation:
    block = Block(residual is not None, layer.activation, layer.pool)
    name = next(name for name, known in BLOCKS.items() if known == block)
    last = x.dim() in (4, 5) and not x.is_contiguous()
    return Operation.of(tuple(x.shape), name).laid_out(CHANNELS_LAST if last else CONTIGUOUS)


@dataclass
class Sample:
    """Some steps, and what there is to know to judge the last one.

    Attributes:
        before: The state before them.
        random_states: Of the generators before them: dropout draws from them.
        iterations: How many.
        gradients: Of the last one.
    """

    before: dict[str, Tensor]
    random_states: list[Tensor]
    iterations: int
    gradients: list[Tensor | None] = field(default_factory=list)


class Steps:
    """A network in training, stopped between two steps.

    Args:
        module: In training mode.
        inputs: The arguments of its call.
    """

    def __init__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.module, self._inputs = module, inputs
        self._parameters = [p for p in module.parameters() if p.requires_grad]

    def subject(self, iterations: int) -> Callable[[], object]:
        """Prepare steps; what runs them returns a `Sample`."""
        state = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        sample = Sample(state, _random_states(self._inputs), iterations)

        def run() -> Sample:
            for _ in range(iterations):
                sample.gradients = self.step()
            return sample

        return run

    def step(self) -> list[Tensor | None]:
        """One step; the gradients of the parameters."""
        loss = loss_of(self.module(*self._inputs))
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        with torch.no_grad():
            pairs = [(p, g) for p, g in zip(self._parameters, gradients, strict=True) if g is not None]
            torch._foreach_add_([p for p, _ in pairs], [g for _, g in pairs], alpha=-LR)
        return list(gradients)

    def seal(self, sample: object) -> None:
        """Keep the gradients as they are when the clock has stopped."""
        assert isinstance(sample, Sample)
        sample.gradients = [None if g is None else g.clone() for g in sample.gradients]

    def inference(self, iterations: int) -> Callable[[], object]:
        """Prepare inferences; the module must be in evaluation mode."""

        def run() -> None:
            with torch.inference_mode():
                for _ in range(iterations):
                    self.module(*self._inputs)

        return run


def why_no_step(sample: Sample, original: nn.Module, inputs: tuple[Tensor, ...]) -> str | None:
    """None, or what is wrong with the last step of a sealed sample: the original network takes the same.

    In a deep network with random weights two right steps may differ as much as two wrong ones: then there is nothing to
    say. How much they differ is seen from a step on an input that is another by one rounding.

    Args:
        sample: Of a converted network, which has the same keys in its state.
        original: The network; a copy takes the step.
        inputs: The arguments of its call.
    """
    right = _gradients_again(sample, original, inputs)
    near = _gradients_again(sample, original, tuple(_nearby(each) for each in inputs))
    for number, (own, exact, other) in enumerate(zip(sample.gradients, right, near, strict=True)):
        if (own is None) != (exact is None):
            return f"gradient {number} is {'missing' if own is None else 'one that there is not'}"
        if own is None or exact is None or other is None:
            continue
        scale = float(exact.abs().max()) or 1.0
        noise = float((other - exact).abs().max()) / scale
        error = float((own - exact).abs().max()) / scale
        if noise < CHAOS and not error <= (tolerance := max(TOLERANCE, OWN_MULTIPLE * noise)):
            return f"gradient {number} is off by {error:.0e} (may be {tolerance:.0e})"
    return None


def _nearby(x: Tensor) -> Tensor:
    return x * (1 + torch.finfo(x.dtype).eps) if x.is_floating_point() else x


def _gradients_again(sample: Sample, original: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor | None]:
    steps = Steps(copy.deepcopy(original).train(), inputs)
    steps.module.load_state_dict(sample.before)
    gradients: list[Tensor | None] = []
    device = inputs[0].device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.set_rng_state(sample.random_states[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(sample.random_states[1], device)
        for _ in range(sample.iterations):
            gradients = steps.step()
    return gradients


def _random_states(inputs: tuple[Tensor, ...]) -> list[Tensor]:
    device = inputs[0].device
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]


def measure(implementation: Implementation, context: Context, spec: NetworkSpec, effort: Effort, twin: bool) -> Figures:
    """Time steps and inferences of a network next to those of the original: the samples, and what they mean.

    Args:
        implementation: In the place of torch's batch norms.
        context: Where.
        spec: The network.
        effort: How long, each for steps and inferences.
        twin: Whether both sides are the original, to know the noise.

    Raises:
        NetworkError: It can't be built.
        WrongError: A step that was timed has other gradients than the original's.
    """
    network = spec.build(context.device)
    original = network.module
    module = copy.deepcopy(original)
    if not twin:
        module, _ = convert(module, implementation)
    own, against = (Steps(each, network.inputs) for each in (module, copy.deepcopy(original)))
    for side in (own, against):
        side.step()
    kept = [_kept_bytes(side) for side in (own, against)]
    witness = Witness(own.seal, context.inspect)
    step = in_pairs(own.subject, against.subject, context.device, effort, witness=witness, captured=False)
    assert isinstance(witness.kept, Sample)
    if reason := why_no_step(witness.kept, original, network.inputs):
        raise WrongError(f"wrong in a step that was timed: {reason}")
    for side in (own, against):
        side.module.eval()
    inference = in_pairs(own.inference, against.inference, context.device, effort, captured=False)
    return {
        "backend": backend(implementation, context.device),
        **step,
        "inference": inference,
        "kept_bytes": kept[0],
        "baseline_kept_bytes": kept[1],
    }


def baseline_ns(context: Context, spec: NetworkSpec) -> list[float]:
    """Nanoseconds of steps of the original alone: what one takes in a process that ran nothing else."""
    network = spec.build(context.device)
    steps = Steps(network.module, network.inputs)
    steps.step()
    return samples(steps.subject, context.device, ALONE_NS)


def _kept_bytes(steps: Steps) -> int:
    """Bytes that a training forward keeps for its backward, each storage once, without parameters and buffers."""
    ledger = Ledger()
    with ledger.hooks():
        loss = loss_of(steps.module(*steps._inputs))
    rows = ledger.rows([*steps.module.parameters(), *steps.module.buffers()])
    del loss  # and with it the graph: it had to be there
    return sum(int(row["bytes"]) for row in rows)


def survey(implementation: Implementation, context: Context, spec: NetworkSpec) -> Figures:
    """The batch norms of a network, with the part of a step that each of them takes.

    Args:
        implementation: The baseline.
        context: Where.
        spec: The network.
    """
    network = spec.build(context.device)
    found, report = uses(network, implementation)
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
            for use in found
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
    found: dict[str, float] = {}
    for event in profiler.key_averages(group_by_input_shape=True):
        own = float(event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total)
        whole += own
        if "batch_norm" in event.key and (shape := _first_shape(event.input_shapes)):
            text = "x".join(map(str, shape))
            found[text] = found.get(text, 0.0) + own
    return {shape: own / whole for shape, own in found.items()} if whole else {}


PROFILED_STEPS = 3


def _first_shape(shapes: Any) -> list[int] | None:
    return next((list(shape) for shape in shapes if len(shape) >= 2), None)

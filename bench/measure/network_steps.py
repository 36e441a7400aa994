"""Any network in training, stopped between two steps; and whether a step that was timed was one.

A step is forward, the mean of the outputs' squares as a loss, backward and SGD, with a learning rate so small that
activations keep their scale.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bench.measure.ledger import Ledger
from bench.measure.verification import ATEN_MULTIPLE, TOLERANCE
from models.networks import loss_of

LR = 1e-4
CHAOS = 0.1
"""Where two right steps differ by more, a step says nothing about who took it; the blocks are judged by themselves."""


LEAST_PART = 1e-5
"""Of the network's largest gradient: what is less is taken for as much, since it may be rounding alone. A bias before a
batch norm has no gradient but rounding."""

Gradients = dict[str, "Tensor | None"]


@dataclass
class Sample:
    """Some steps, and what there is to know to judge the last one.

    Attributes:
        before: The state before them.
        random_states: Of the generators before them: dropout draws from them.
        iterations: How many.
        gradients: Of the last one, by the name of the parameter: a traced network has them in another order.
    """

    before: dict[str, Tensor]
    random_states: list[Tensor]
    iterations: int
    gradients: Gradients = field(default_factory=dict)


class Steps:
    """A network in training, stopped between two steps.

    Args:
        module: In training mode.
        inputs: The arguments of its call.
    """

    __slots__ = ("_inputs", "_parameters", "module")  # as `bench.measure.subjects.Workload` has them

    def __init__(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.module, self._inputs = module, inputs
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}

    def subject(self, iterations: int) -> Callable[[], object]:
        """Prepare steps; what runs them returns a `Sample`."""
        state = {name: tensor.detach().clone() for name, tensor in self.module.state_dict().items()}
        sample = Sample(state, _random_states(self._inputs), iterations)

        def run() -> Sample:
            for _ in range(iterations):
                sample.gradients = self.step()
            return sample

        return run

    def step(self) -> Gradients:
        """One step; the gradients of the parameters."""
        loss = loss_of(self.module(*self._inputs))
        parameters = list(self._parameters.values())
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        with torch.no_grad():
            pairs = [(p, g) for p, g in zip(parameters, gradients, strict=True) if g is not None]
            torch._foreach_add_([p for p, _ in pairs], [g for _, g in pairs], alpha=-LR)
        return dict(zip(self._parameters, gradients, strict=True))

    def seal(self, sample: object) -> None:
        """Keep the gradients as they are when the clock has stopped."""
        assert isinstance(sample, Sample)
        sample.gradients = {name: None if g is None else g.clone() for name, g in sample.gradients.items()}

    def kept_bytes(self) -> int:
        """Bytes that a forward keeps for its backward, each storage once, without parameters and buffers."""
        ledger = Ledger()
        with ledger.hooks():
            loss = loss_of(self.module(*self._inputs))
        rows = ledger.rows([*self.module.parameters(), *self.module.buffers()])
        del loss  # and with it the graph: it had to be there
        return sum(int(row["bytes"]) for row in rows)

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
    least = LEAST_PART * max((float(g.abs().max()) for g in right.values() if g is not None), default=0.0)
    for name, exact in right.items():
        own, other = sample.gradients.get(name), near[name]
        if (own is None) != (exact is None):
            return f"the gradient of {name} is {'missing' if own is None else 'one that there is not'}"
        if own is None or exact is None or other is None:
            continue
        scale = max(float(exact.abs().max()), least) or 1.0
        noise = float((other - exact).abs().max()) / scale
        error = float((own - exact).abs().max()) / scale
        if noise < CHAOS and not error <= (tolerance := max(TOLERANCE, ATEN_MULTIPLE * noise)):
            return f"the gradient of {name} is off by {error:.0e} (may be {tolerance:.0e})"
    return None


def _nearby(x: Tensor) -> Tensor:
    return x * (1 + torch.finfo(x.dtype).eps) if x.is_floating_point() else x


def _gradients_again(sample: Sample, original: nn.Module, inputs: tuple[Tensor, ...]) -> Gradients:
    steps = Steps(copy.deepcopy(original).train(), inputs)
    steps.module.load_state_dict(sample.before)
    gradients: Gradients = {}
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

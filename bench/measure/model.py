"""What batch norms gain in any network: steps and inferences with them in the place of torch's layers.

Both sides of a pair start from the same weights and go through the same input.
"""

from __future__ import annotations

import copy

from bench.measure.context import Context
from bench.measure.efforts import Effort, Efforts
from bench.measure.epochs import backend
from bench.measure.figures import Figures, WrongError
from bench.measure.latency import in_pairs
from bench.measure.network_steps import Sample, Steps, why_no_step
from bench.measure.timing import Witness, samples
from kernels import Implementation, convert
from models.networks import NetworkSpec

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
ALONE_NS = 1_000_000_000


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
    kept = [side.kept_bytes() for side in (own, against)]
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

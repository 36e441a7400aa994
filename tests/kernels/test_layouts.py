"""Input that doesn't lie in memory as its shape suggests."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from kernels.problems import make_problem
from tests.kernels.conformance import BASE, assert_conforms

LAYOUTS = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed image": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "batch last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "cut out of a larger image": lambda x: F.pad(x, (1, 2, 2, 1))[:, :, 2:-1, 1:-2],
    "some channels of more": lambda x: torch.cat([x, x], 1)[:, x.shape[1] :],
    "every second image": lambda x: torch.stack([x, x], 1).flatten(0, 1)[::2],
    "every second pixel": lambda x: torch.stack([x, x], -1).flatten(-2)[..., ::2],
}
MATRIX_LAYOUTS = {
    "transposed matrix": lambda x: x.t().contiguous().t(),
    "some columns of more": lambda x: F.pad(x, (2, 3))[:, 2:-3],
    "every second column": lambda x: torch.stack([x, x], -1).flatten(-2)[:, ::2],
}


def laid_out(implementation, layout):
    """The implementation, given its input in that layout; gradients flow back through the rearrangement."""

    def given(function):
        def call(x, *args, **kwargs):
            rearranged = layout(x)
            assert not rearranged.is_contiguous()
            return function(rearranged, *args, **kwargs)

        return call

    return replace(implementation, batch_norm=given(implementation.batch_norm), batch_norm_block=None)


SHAPED = (
    {name: (BASE, layout) for name, layout in LAYOUTS.items()}
    | {name: ((9, 4), layout) for name, layout in MATRIX_LAYOUTS.items()}
    | {
        "channels last volume": ((3, 2, 3, 4, 5), lambda x: x.contiguous(memory_format=torch.channels_last_3d)),
        "transposed sequence": ((5, 3, 9), lambda x: x.transpose(1, 2).contiguous().transpose(1, 2)),
    }
)
BOTH_MODES = {
    f"{name}, {'training' if training else 'evaluation'}": (shape, layout, training)
    for name, (shape, layout) in SHAPED.items()
    for training in (True, False)
}


@pytest.mark.cases(
    core={name: BOTH_MODES[name] for name in ("channels last, training", "cut out of a larger image, evaluation")},
    more=BOTH_MODES,
)
def test_the_layout_of_the_input_changes_nothing(implementation, device, case):
    shape, layout, training = case
    problem = make_problem(shape, device=device, training=training)
    assert_conforms(laid_out(implementation, layout), problem)


def test_input_and_gradient_may_both_be_channels_last(implementation, device):
    problem = make_problem(BASE, device=device)
    last = LAYOUTS["channels last"]
    problem = replace(problem, input=last(problem.input), grad_output=last(problem.grad_output))
    assert_conforms(implementation, problem)

"""Calls of `triton_fused`, forward and backward, of every kind that its plans tell apart."""

import torch


def off_by_one(tensor):
    """As large, at an address that 16 does not divide."""
    return torch.zeros(tensor.numel() + 1, dtype=tensor.dtype)[1:].view(tensor.shape)


def step(
    shape,
    dtype=torch.float32,
    training=True,
    parameters=None,
    rows=False,
    without=None,
    unaligned=(),
    residual=False,
    **options,
):
    """A forward and a backward, on the same tensors each time."""
    from kernels import BatchNorm

    layer = BatchNorm(shape[1], "triton_fused", dtype=parameters, **options).train(training)
    if without:
        setattr(layer, without, None)
    x = torch.zeros(shape, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last) if rows else x
    x = off_by_one(x) if "input" in unaligned else x
    if "weight" in unaligned:
        layer.weight.data = off_by_one(layer.weight)
    added = torch.zeros_like(x) if residual else None
    added = off_by_one(added) if "residual" in unaligned else added
    return step_on(x, layer, added)


def step_on(x, layer, residual=None):
    x.requires_grad_()

    def call():
        y = layer(x, residual)
        y.backward(torch.zeros_like(y))

    return call


def steps(shape, dtype, **around):
    """The four steps of a batch, one after another."""
    from kernels.steps import Around, Normal
    from kernels.triton_fused.steps import STEPS

    x, around = torch.zeros(shape, dtype=dtype), Around(**around)

    def call():
        normal = Normal(STEPS.statistics(x).values[1:].view(2, -1), None, None)
        y = STEPS.apply(x, normal, around)
        sums, kept, _ = STEPS.backward_sums(y, x, y, normal, around)
        STEPS.backward_apply(kept, x, normal, sums, 100)

    return call


POOLED = {"activation": "sigmoid", "pool": 2}
DOUBLE = {"dtype": torch.float64, "parameters": torch.float64}
HALF = {"dtype": torch.float16}
ROWS = {"rows": True, "activation": "relu"}
RESIDUAL = {"residual": True, "activation": "relu"}
RESIDENT, SPLIT, MATRIX = (2, 4, 6, 6), (40, 4, 24, 24), (64, 20)
IMAGES = [RESIDENT, (1, 4, 6, 6), (16, 4, 6, 6), SPLIT, (41, 3, 25, 23), (256, 16, 16, 16)]
OTHERS = [MATRIX, (256, 120), (2000, 64), (5, 3, 7), (5, 3, 2, 3, 4), (400, 3, 70), (7, 1)]
SETTINGS = [
    {},
    HALF,
    {**HALF, "parameters": torch.float16},
    {"dtype": torch.bfloat16, "activation": "relu"},
    DOUBLE,
    {"training": False},
    {"momentum": None},
    {"momentum": 0.3, "eps": 1e-3},
    {"affine": False},
    {"track_running_stats": False},
    {"without": "num_batches_tracked"},
    {"without": "bias"},
    {"without": "weight"},
    RESIDUAL,
    {**RESIDUAL, **HALF},
    {**RESIDUAL, "training": False},
    {"residual": True, **DOUBLE},
]
OF_IMAGES = [
    {**RESIDUAL, "rows": True},
    POOLED,
    {**POOLED, **DOUBLE},
    {**POOLED, "rows": True},
    {**POOLED, "training": False},
    ROWS,
    ROWS | HALF,
]

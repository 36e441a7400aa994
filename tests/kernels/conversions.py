"""Two networks that must do the same: a converted one and the original."""

import torch


def close(ours, expected):
    # A deep network multiplies roundings: of 1e-16 they become 1e-6 of a gradient in resnet152, where a fault is 1.
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def two_steps(network, x):
    """What two steps of training give, with the same dropout for all: outputs, gradients, and the state after them."""
    torch.manual_seed(1)
    parameters = dict(network.named_parameters())
    outputs, gradients = [], {}
    for _ in range(2):
        y = network(x)
        y = y if isinstance(y, torch.Tensor) else y.logits
        outputs.append(y.detach())
        found = torch.autograd.grad(y.square().mean(), list(parameters.values()), allow_unused=True)
        gradients = {name: g for name, g in zip(parameters, found, strict=True) if g is not None}
        with torch.no_grad():
            for name, gradient in gradients.items():
                parameters[name] -= 1e-3 * gradient
    return outputs, gradients, dict(network.state_dict())


def assert_alike(converted, original, x):
    assert set(converted.state_dict()) == set(original.state_dict())
    for found, expected in zip(two_steps(converted, x), two_steps(original, x), strict=True):
        close(found, expected)
    for network in (converted, original):
        network.eval()
    with torch.no_grad():
        close(converted(x), original(x))

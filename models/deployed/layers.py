"""LeNet out of torch's own layers, as its users have it: what can be folded, compiled and exported."""

from __future__ import annotations

from torch import nn

from kernels import BatchNorm

ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU}


def in_torchs_layers(network: nn.Sequential) -> nn.Sequential:
    """The same network with torch's layers in every slot, in the same mode.

    Layers that hold no batch norm are shared with `network`, parameters and running statistics are copied. Children
    are numbered as in the lesson, so `state_dict` has the same keys as that of `models.lenet.lenet`.
    """
    layers: list[nn.Module] = []
    for layer in network:
        layers += _of_slot(layer) if isinstance(layer, BatchNorm) else [layer]
    return nn.Sequential(*layers).train(network.training)


def _of_slot(slot: BatchNorm) -> list[nn.Module]:
    kind = nn.BatchNorm2d if slot.pool else nn.BatchNorm1d  # only images are pooled
    norm = kind(slot.num_features, slot.eps, slot.momentum).to(slot.weight.device)
    norm.load_state_dict(slot.state_dict())
    layers: list[nn.Module] = [norm]
    if slot.activation:
        layers.append(ACTIVATIONS[slot.activation]())
    if slot.pool:
        layers.append(nn.MaxPool2d(slot.pool, slot.pool))
    return layers

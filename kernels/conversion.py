"""Replace a network's batch norms by an implementation, and restore them.

layers    each of torch's layers gives its place to one with the same parameters, buffers and hooks
fusion    where torch.fx proves it safe, that layer also adds the residual behind it, and does activation and pool:
          `fusion.py`
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TypeGuard, cast

import torch
from torch import Tensor, nn

from kernels.arguments import check_residual
from kernels.changes import Change, Report
from kernels.contract import ACTIVATIONS, Implementation
from kernels.fusion import fused
from kernels.layer import BatchNorm
from kernels.registry import load
from kernels.synchronized import WORLD, Group, steps_of

_TORCHS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_OURS = ("implementation", "activation", "pool", "of", "process_group", "_is_alike")
_ORIGINAL = "bnbench"


class Swapped(BatchNorm):
    """A batch norm in the place of one of torch's, with its parameters, buffers, hooks and limits to the input."""

    of: type[nn.modules.batchnorm._BatchNorm]

    def _check_input_dim(self, input: Tensor) -> None:
        self.of._check_input_dim(self, input)
        super()._check_input_dim(input)

    def forward(self, input: Tensor, residual: Tensor | float | None = None) -> Tensor:
        """As its base class, but add whatever the network added, broadcast or of another type too."""
        if residual is None or _is_like(residual, input):
            return super().forward(input, residual)
        self._check_input_dim(input)
        return ACTIVATIONS[self.activation](self._block(input, None, None, None) + residual)


def convert(module: nn.Module, implementation: Implementation | str, *, fuse: bool = True) -> tuple[nn.Module, Report]:
    """Replace the batch norms of a network by an implementation.

    Layers are swapped in place, as `torch.nn.SyncBatchNorm.convert_sync_batchnorm` does it. A network in which
    something is fused comes back as a `torch.fx.GraphModule`, which shares its layers, parameters and buffers with
    `module`. The keys of `state_dict` are those of before, and so are outputs and gradients, up to rounding.

    Args:
        module: Any network, or a layer.
        implementation: An `Implementation`, or what `kernels.load` takes.
        fuse: Whether to do residual additions, activations (ReLU, sigmoid) and 2 x 2 max-pools in one with the batch
            norm before them.

    Returns:
        The network, and a report on each of its batch norms.

    Raises:
        UnknownImplementationError, BrokenImplementationError: As `kernels.load` does.
    """
    if isinstance(implementation, str):
        implementation = load(implementation)
    module, changes = _swapped(module, implementation)
    if not fuse or not any(change.action == "swapped" for change in changes.values()):
        return module, Report(tuple(changes.values()))
    graph, reason = fused(module, changes)
    if graph is None:
        return module, Report(tuple(changes.values()), not_fused=reason)
    # In a tuple it is no part of the network. A copy keeps the one place, and a pickle the other.
    graph.meta[_ORIGINAL] = vars(graph)[f"_{_ORIGINAL}"] = (module,)
    return graph, Report(tuple(changes.values()))


def convert_synchronized(module: nn.Module, process_group: Group = None) -> nn.Module:
    """Have a network's batch norms take their statistics from all processes of a group in training.

    Keys of `state_dict` are those of before. After `torch.nn.SyncBatchNorm.convert_sync_batchnorm`; but layers stay
    what they are, and with them fused activations and pools. Under gloo, call `models.gloo.step_back()` when the groups
    are there: its event loop spins where others calculate.

    Args:
        module: A network with layers of ours: see `convert`. It is changed in place.
        process_group: A `torch.distributed.ProcessGroup`; None for the default one.

    Returns:
        The module.

    Raises:
        TypeError: There are batch norms of torch's own.
        ValueError: An implementation can't be synchronized.
    """
    layers = []
    for layer in filter(_is_batch_norm, module.modules()):
        if not isinstance(layer, BatchNorm):
            raise TypeError(f"{_class_of(layer)} is not a layer of ours: kernels.convert the network first")
        steps_of(layer.implementation)  # before anything changes
        layers.append(layer)
    for layer in layers:
        layer.synchronize(WORLD if process_group is None else process_group)
    return module


def unconvert(module: nn.Module) -> nn.Module:
    """Restore torch's own layers in a converted network, with its current parameters and statistics.

    Args:
        module: What `convert` returned, or a copy of it. Layers are swapped in place.

    Raises:
        ValueError: Layers are synchronized, and torch's would not be.
    """
    if any(isinstance(part, BatchNorm) and part.process_group is not None for part in module.modules()):
        raise ValueError(
            "torch's own layers would not be synchronized: end that first, with synchronize(None) of every layer"
        )
    while original := _original_of(module):
        if {id(p) for p in original.parameters()} != {id(p) for p in module.parameters()}:
            original = copy.deepcopy(original)
            original.load_state_dict(module.state_dict())
        flags = {name: part.training for name, part in module.named_modules()}
        for name, part in original.named_modules():
            part.training = flags.get(name, module.training)
        module = original
    back: dict[int, nn.Module] = {}
    for parent, name, layer in _layers(module):
        if isinstance(layer, Swapped):
            module = _put(module, parent, name, back.setdefault(id(layer), _torchs(layer)))
    return module


def _is_like(residual: object, input: Tensor) -> TypeGuard[Tensor]:
    """Whether an implementation takes it for a residual."""
    try:
        check_residual(input, cast(Tensor, residual))
    except (TypeError, RuntimeError):
        return False
    return True


def _original_of(module: nn.Module) -> nn.Module | None:
    """The network from which one with fused blocks was made; None for others."""
    meta = module.meta if isinstance(module, torch.fx.GraphModule) else {}
    original: nn.Module | None = (meta.get(_ORIGINAL) or vars(module).get(f"_{_ORIGINAL}") or (None,))[0]
    return original


def _torchs(layer: Swapped) -> nn.Module:
    torchs = layer.of.__new__(layer.of)
    torchs.__dict__.update({key: value for key, value in vars(layer).items() if key not in _OURS})
    return torchs


def _swapped(module: nn.Module, implementation: Implementation) -> tuple[nn.Module, dict[str, Change]]:
    """The network with every possible batch norm swapped, and the change of each, by name."""
    changes: dict[str, Change] = {}
    new: dict[int, Swapped] = {}  # a layer that stands in two places does so afterward
    names = {id(part): name for name, part in module.named_modules()}
    closed = {
        id(part): "inside of a part under torch.compile or in TorchScript"
        for closed_part in module.modules()
        if _is_closed(closed_part)
        for part in closed_part.modules()
    }
    for parent, name, layer in _layers(module):
        full = f"{names[id(parent)]}.{name}".lstrip(".") if parent is not None else ""
        reason = closed.get(id(layer)) or _why_not(layer)
        if reason is None:
            if id(layer) not in new:
                new[id(layer)] = _in_place_of(layer, implementation)
            module = _put(module, parent, name, new[id(layer)])
        size = getattr(layer, "num_features", None)
        changes[full] = Change(full, _class_of(layer), size, "left" if reason else "swapped", reason or "")
    return module, changes


def _in_place_of(layer: nn.Module, implementation: Implementation) -> Swapped:
    new = Swapped.__new__(Swapped)
    new.__dict__.update(vars(layer))
    new.implementation = implementation
    if not isinstance(layer, Swapped):  # else it may be a block, and stays one
        new.of, new.activation, new.pool = type(layer), None, None  # type: ignore[assignment]
    return new


def _why_not(layer: nn.Module) -> str | None:
    """None, or why a layer keeps its place."""
    if type(layer) in (*_TORCHS, Swapped):
        return None
    if isinstance(layer, nn.SyncBatchNorm):
        return "its statistics are those of several processes"
    if isinstance(layer, BatchNorm):
        return "it is one of ours already"
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin):
        return "it has no parameters before its first input"
    return "a class of its own, which may do more than batch norm"


def _class_of(part: nn.Module) -> str:
    return str(getattr(part, "original_name", type(part).__name__))  # in TorchScript all have one class


def _is_batch_norm(part: nn.Module) -> bool:
    by_name = _class_of(part) in ("FrozenBatchNorm2d", *(torchs.__name__ for torchs in _TORCHS))
    return isinstance(part, nn.modules.batchnorm._BatchNorm) or by_name


def _is_closed(part: nn.Module) -> bool:
    compiled = type(part).__name__ == "OptimizedModule" or getattr(part, "_compiled_call_impl", None) is not None
    return compiled or isinstance(part, torch.jit.ScriptModule)


def _layers(module: nn.Module) -> Iterator[tuple[nn.Module | None, str, nn.Module]]:
    """Every place of a batch norm: what holds it (None: it is the module itself), its name there, and the layer."""
    if _is_batch_norm(module):
        yield None, "", module
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and _is_batch_norm(child):
                yield parent, name, child


def _put(module: nn.Module, parent: nn.Module | None, name: str, layer: nn.Module) -> nn.Module:
    """The module with a layer in its place."""
    if parent is None:
        return layer
    parent._modules[name] = layer
    return module

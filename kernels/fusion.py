"""Fuse a batch norm with what follows it, where torch.fx proves that nothing else reads its output.

The graph of a network shows the readers of each value. Only batch norms and the modules that contain them are traced
through: every other module stays one call.
"""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.utils import _pair

from kernels.changes import Change
from kernels.layer import BatchNorm

_ACTIVATIONS: dict[Any, str] = {
    nn.ReLU: "relu",
    nn.Sigmoid: "sigmoid",
    F.relu: "relu",
    F.relu_: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    torch.sigmoid: "sigmoid",
    torch.sigmoid_: "sigmoid",
    F.sigmoid: "sigmoid",
    "relu": "relu",
    "relu_": "relu",
    "sigmoid": "sigmoid",
    "sigmoid_": "sigmoid",
}
_ADDITIONS = (operator.add, torch.add, "add", "__add__")
_ADDITIONS_IN_PLACE = (operator.iadd, "add_", "__iadd__")
_MAKERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
"""Their results are new memory, which nobody else can change."""
_POOL: dict[str, Any] = {
    "kernel_size": None,
    "stride": None,
    "padding": 0,
    "dilation": 1,
    "ceil_mode": False,
    "return_indices": False,
}
"""The arguments of a max-pool in their order, with their defaults."""

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _Proxy(fx.Proxy):
    """Keeps `y += x` what it is: fx makes `y + x` of it, and whoever else has y then sees the old values."""


def _in_place(name: str) -> Any:
    def method(self: fx.Proxy, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", getattr(operator, name), (self, other), {})

    return method


for _name in ("iadd", "isub", "imul", "imatmul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior", "ixor"):
    setattr(_Proxy, f"__{_name}__", _in_place(_name))


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        """What stands for a value."""
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - fx's signature
        """Whether it stays a call: a batch norm, what has none inside, and what hooks watch."""
        inside = any(isinstance(part, _BatchNorm) for part in m.modules())
        return isinstance(m, _BatchNorm) or not inside or _is_watched(m)


def fused(module: nn.Module, changes: dict[str, Change]) -> tuple[fx.GraphModule | None, str]:
    """The network with fused blocks, and an empty reason; or None, and why nothing can be fused.

    Args:
        module: Its batch norms are ours. It stays as it is.
        changes: The change of each batch norm; updated with what is fused, and why others are not.
    """
    if isinstance(module, _BatchNorm):
        return None, "nothing is behind it"
    if _is_watched(module):
        return None, "the network has hooks"
    try:
        graph = _graph_of(module)
    except Exception as error:  # the network may fail in any way without numbers
        return None, f"torch.fx can't trace it: {(str(error).splitlines() or [type(error).__name__])[0][:200]}"
    if graph is None:
        return None, "what it does depends on `training` in other ways than its layers'"
    network = fx.GraphModule(module, graph, type(module).__name__)
    _complete(network, module)
    for name, part in network.named_modules():
        part.training = module.get_submodule(name).training
    calls = Counter(id(network.get_submodule(str(n.target))) for n in graph.nodes if n.op == "call_module")
    layers = {node: part for node in graph.nodes if isinstance(part := _module_of(node, network), BatchNorm)}
    for node, layer in layers.items():
        name = str(node.target)
        if name not in changes or changes[name].action == "left":
            continue
        reason = _why_alone(node, layer, network, calls)
        if reason is None:
            note = _fuse(node, layer, network)
            changes[name] = replace(changes[name], action="fused", note=note)
        else:
            changes[name] = replace(changes[name], note=reason)
    for name, change in changes.items():
        if change.action == "swapped" and not change.note:
            changes[name] = replace(change, note="no call passes it that torch.fx sees")
    if not any(change.action == "fused" for change in changes.values()):
        return None, "behind no batch norm is an activation that only it feeds"
    graph.lint()
    network.recompile()
    return network, ""


def _graph_of(module: nn.Module) -> fx.Graph | None:
    """The graph of its calls; None where training and evaluation differ."""
    flags = {part: part.training for part in module.modules()}
    graphs = []
    try:
        for training in (True, False):
            module.train(training)
            graphs.append(_Tracer().trace(module))
    finally:
        for part, training in flags.items():
            part.training = training
    return graphs[0] if str(graphs[0]) == str(graphs[1]) else None


def _complete(network: fx.GraphModule, module: nn.Module) -> None:
    """Add the modules that are never called: their parameters are in `state_dict`, too."""
    for key in module.state_dict(keep_vars=True):
        owner, _, name = key.rpartition(".")
        if not _exists(network, owner):
            network.add_submodule(owner, module.get_submodule(owner))
        part, original = network.get_submodule(owner), module.get_submodule(owner)
        for places in ("_parameters", "_buffers"):
            if name in vars(original)[places]:
                vars(part)[places].setdefault(name, vars(original)[places][name])


def _exists(module: nn.Module, name: str) -> bool:
    try:
        module.get_submodule(name)
    except AttributeError:
        return False
    return True


def _module_of(node: fx.Node, network: fx.GraphModule) -> nn.Module | None:
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None


def _is_watched(part: nn.Module) -> bool:
    return any(vars(part).get(hooks) for hooks in _HOOKS)


def _why_alone(node: fx.Node, layer: BatchNorm, network: fx.GraphModule, calls: Counter[int]) -> str | None:
    """None, or why a batch norm isn't fused with what comes next."""
    if calls[id(layer)] > 1:
        return "it is called in several places"
    if _is_watched(layer):
        return "hooks watch it"
    if layer.training != network.training:
        return "it is frozen"
    if layer.activation or layer.pool:
        return "it is a block already"
    if len(node.users) > 1:
        return "its output is read in several places"
    if not node.users:
        return "nobody reads its output"
    following = next(iter(node.users))
    if _is_addition(following):
        return _why_no_residual(node, following, network)
    return None if _activation(following, network) else "no ReLU, sigmoid or addition follows"


def _activation(node: fx.Node, network: fx.GraphModule) -> str | None:
    """The name of the activation that a call makes, if it is one."""
    part = _module_of(node, network)
    if part is not None:
        return None if _is_watched(part) else _ACTIVATIONS.get(type(part))
    if len(node.all_input_nodes) != 1 or node.op not in ("call_function", "call_method"):
        return None
    return _ACTIVATIONS.get(node.target)


def _fuse(node: fx.Node, layer: BatchNorm, network: fx.GraphModule) -> str:
    """Fuse the calls after a layer into it, and return what they were."""
    following: list[fx.Node] = []
    residual = activation = pool = None
    after = _only_reader(node)
    if after is not None and _is_addition(after):
        residual = _other_operand(node, after)
        following.append(after)
        after = _only_reader(after)
    if after is not None and (activation := _activation(after, network)):
        following.append(after)
        after = _only_reader(after)
        if after is not None and residual is None and _is_pool(after, network) and _of_images(layer):
            pool = 2
            following.append(after)
    block = type(layer).__new__(type(layer))
    block.__dict__.update({**vars(layer), "activation": activation, "pool": pool})
    network.set_submodule(str(node.target), block)
    if residual is not None:
        following[0].prepend(node)  # where the residual is ready, and as it was read
        node.args = (node.args[0], residual)
    following[-1].replace_all_uses_with(node)
    for done in reversed(following):
        part, name = _module_of(done, network), str(done.target)
        node.graph.erase_node(done)
        if part is not None and not any(n.op == "call_module" and n.target == name for n in node.graph.nodes):
            network.delete_submodule(name)
    parts = ("residual" if residual else None, activation, "pool" if pool else None)
    return " + ".join(part for part in parts if part)


def _only_reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _is_addition(node: fx.Node) -> bool:
    """Whether a call adds two values, and nothing else."""
    called = node.op in ("call_function", "call_method") and node.target in (*_ADDITIONS, *_ADDITIONS_IN_PLACE)
    two = len(node.args) == 2 and len(node.all_input_nodes) == 2
    return bool(called and two and not node.kwargs)


def _other_operand(node: fx.Node, addition: fx.Node) -> fx.Node:
    return next(each for each in addition.all_input_nodes if each is not node)


def _why_no_residual(node: fx.Node, addition: fx.Node, network: fx.GraphModule) -> str | None:
    """None, or why an addition can't be done in one with the batch norm before it."""
    if addition.target in _ADDITIONS_IN_PLACE and addition.args[0] is not node:
        return "what is added to is changed in place"
    if node.next is addition:
        return None
    source = node.all_input_nodes[0]
    if len(source.users) == 1 and isinstance(_module_of(source, network), _MAKERS):
        return None
    return "between it and the addition its input might change"


def _of_images(layer: BatchNorm) -> bool:
    return getattr(layer, "of", nn.BatchNorm2d) is nn.BatchNorm2d


def _is_pool(node: fx.Node, network: fx.GraphModule) -> bool:
    """Whether a call is the 2 x 2 max-pool of stride 2."""
    part = _module_of(node, network)
    if part is not None:
        if type(part) is not nn.MaxPool2d or _is_watched(part):
            return False
        asked = {name: getattr(part, name) for name in _POOL}
    elif node.op == "call_function" and node.target in (F.max_pool2d, torch.max_pool2d):
        asked = {**_POOL, **dict(zip(_POOL, node.args[1:], strict=False)), **node.kwargs}
    else:
        return False
    sizes = (asked["kernel_size"], asked["stride"] or asked["kernel_size"], asked["padding"], asked["dilation"])
    plain = not (asked["ceil_mode"] or asked["return_indices"])
    return plain and tuple(map(_pair, sizes)) == ((2, 2), (2, 2), (0, 0), (1, 1))

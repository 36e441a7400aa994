"""Call an implementation as a duty asks, and bring back all that it has handed out and may have touched.

Nothing is judged here: this runs in the implementation's process, and the one that asked judges.
What comes in and goes out is plain: numbers, words, and dense tensors by name.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from kernels.contract import Implementation
from kernels.duties.layouts import lay_out
from kernels.layer import BatchNorm

LATER_SECONDS = 0.02
"""How long an answer is waited for that is still being written when the call returns."""
SLEEP_CYCLES = 20_000_000  # 10 ms
NOT_IMPLEMENTED = "not implemented"
"""What stands before the words of a `NotImplementedError`: it says so itself, and breaks no promise."""
RUNNING = ("running_mean", "running_var")
POSITIONAL = ("input", *RUNNING, "weight", "bias")
OPERANDS = (*POSITIONAL, "residual")
GRADIENTS = {"input": "dx", "weight": "dweight", "bias": "dbias", "residual": "dresidual"}

Plan = dict[str, Any]
"""What is done: "way", one of `WAYS`; "order", that of the backwards; and "calls", for each a dict like `PLAIN`."""
Tensors = dict[str, Tensor]
Facts = list[dict[str, Any]]
Ask = Callable[[Plan, Tensors], tuple[Facts, Tensors]]

PLAIN: dict[str, Any] = {
    "training": True,
    "momentum": 0.1,
    "eps": 1e-5,
    "activation": None,
    "pool": None,
    "grad_mode": "grad",  # or "no_grad", "inference_mode"
    "wanted": ["input", "weight", "bias", "residual"],  # what requires a gradient
    "input_layout": "contiguous",
    "residual_layout": "contiguous",
    "grad_layout": "contiguous",
    "backward": "once",  # or "twice", from one graph; or "accumulated", by `backward()`
    "parameters": False,  # weight and bias are `nn.Parameter`
    "keywords": False,
    "leaf": True,  # or the input is the result of an operation
    "overwritten": False,  # the output before the backward, as relu does it in place
}
"""The settings of a call that asks for nothing special."""

WAYS = ("held", "same tensors", "layer")
"""First all calls, then all backwards; one after the other on the same tensors; the same as a layer with
`momentum=None`."""


@dataclass
class _Call:
    """One call in progress: its operands, what was handed out, and copies of that as it was at once."""

    settings: dict[str, Any]
    operands: dict[str, Tensor | None]
    leaves: dict[str, Tensor] = field(default_factory=dict)
    grad_output: Tensor | None = None
    handed_out: Tensors = field(default_factory=dict)
    at_once: Tensors = field(default_factory=dict)
    in_the_end: Tensors = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


def perform(
    implementation: Implementation, plan: Plan, tensors: Tensors, device: torch.device
) -> tuple[Facts, Tensors]:
    """Do what a plan says.

    Args:
        implementation: Whom to call.
        plan: See `Plan`.
        tensors: The operands of each call as `NUMBER.NAME`, dense; what is missing is None.
        device: Where.

    Returns:
        For each call facts: "refused", what it raised; "type", where the output is no tensor; "device" of the output;
        "without", gradients that there weren't; "aliases" and "written", operands whose memory is the output's, or
        that were written to. And tensors: what was handed out and the running statistics, `NUMBER.NAME` as they were
        at once, `NUMBER.NAME later` as they were in the end, operands too.
    """
    calls: list[_Call] = []
    function: Callable[..., Tensor] | None = None
    for number, settings in enumerate(plan["calls"]):
        fresh = {name: _on(device, tensors.get(f"{number}.{name}")) for name in (*OPERANDS, "grad_output")}
        if plan["way"] == "held" or not calls:
            call = _prepared(fresh, settings)
            if plan["way"] == "layer":
                function = _layer(implementation, call)
        else:
            call = _renewed(calls[0], fresh, settings, device)
        call.versions = {name: t._version for name in GRADIENTS if (t := call.operands[name]) is not None}
        _forward(function or _function_of(implementation, call), call)
        calls.append(call)
        if plan["way"] == "same tensors":
            time.sleep(LATER_SECONDS)
        if plan["way"] != "held":
            _backward(call)
            _note_operands(call)
    if plan["way"] == "held":
        for number in plan["order"]:
            _backward(calls[number])
        if len(calls) > 1:
            time.sleep(LATER_SECONDS)
        for call in calls:
            _note_operands(call)
    for call in calls:
        call.in_the_end |= {name: _copy(tensor) for name, tensor in call.handed_out.items()}
    tensors = {f"{n}.{name}": value for n, call in enumerate(calls) for name, value in call.at_once.items()}
    tensors |= {f"{n}.{name} later": value for n, call in enumerate(calls) for name, value in call.in_the_end.items()}
    return [call.facts for call in calls], tensors


def _on(device: torch.device, tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.to(device)


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _prepared(fresh: Mapping[str, Tensor | None], settings: dict[str, Any]) -> _Call:
    """A call on tensors of its own, laid out as it asks."""
    operands: dict[str, Tensor | None] = {}
    leaves: Tensors = {}
    for name in OPERANDS:
        tensor = fresh[name]
        if tensor is None:
            operands[name] = None
            continue
        tensor = lay_out(tensor, settings.get(f"{name}_layout", "contiguous"))
        if name in GRADIENTS:
            wanted = name in settings["wanted"]
            is_parameter = settings["parameters"] and name in ("weight", "bias")
            leaves[name] = nn.Parameter(tensor, wanted) if is_parameter else tensor.requires_grad_(wanted)
            tensor = leaves[name]
            if name == "input" and not settings["leaf"]:
                tensor = tensor * 1
        operands[name] = tensor
    dy = fresh["grad_output"]
    return _Call(settings, operands, leaves, None if dy is None else lay_out(dy, settings["grad_layout"]))


def _renewed(first: _Call, fresh: Mapping[str, Tensor | None], settings: dict[str, Any], device: torch.device) -> _Call:
    """A call on the tensors of the first one, with other content.

    Parameters and statistics change as an optimizer changes them, so that version counters tell of it, and who folds
    them may. Batch and gradient change behind autograd's back: no batch norm has a reason to know them again. In
    training the running statistics stay as the call before left them.
    """
    dy = fresh["grad_output"]
    hidden = ((first.operands["input"], fresh["input"]), (first.grad_output, dy))
    seen = [
        (first.operands[name], fresh[name]) for name in OPERANDS[1:] if not (settings["training"] and name in RUNNING)
    ]
    _hold_up(device)
    for held, new in hidden:
        if held is not None and new is not None:
            held.data.copy_(new)
    with torch.no_grad():
        for held, new in seen:
            if held is not None and new is not None:
                held.copy_(new)
    return _Call(settings, first.operands, first.leaves, first.grad_output)


def _hold_up(device: torch.device) -> None:
    """Let the queue of the device wait: another stream, if it doesn't wait for ours, sees what was there before."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda._sleep(SLEEP_CYCLES)


def _function_of(implementation: Implementation, call: _Call) -> Callable[..., Tensor]:
    asked = {name: call.settings[name] for name in ("activation", "pool")} | {"residual": call.operands["residual"]}
    asked = {name: value for name, value in asked.items() if value is not None}
    return functools.partial(implementation.block, **asked) if asked else implementation.batch_norm


def _layer(implementation: Implementation, call: _Call) -> Callable[..., Tensor]:
    """The layer with `momentum=None`, with the operands of a call in the place of its own."""
    mean, weight = call.operands["running_mean"], call.operands["weight"]
    assert mean is not None
    layer = BatchNorm(len(mean), implementation, momentum=None, eps=call.settings["eps"], affine=weight is not None)
    layer.to(mean.device)
    layer.running_mean, layer.running_var = mean, call.operands["running_var"]
    for name in ("weight", "bias"):
        if call.operands[name] is not None:
            setattr(layer, name, call.operands[name])
    return lambda x, *_, **__: layer(x)


def _forward(function: Callable[..., Tensor], call: _Call) -> None:
    settings, operands = call.settings, call.operands
    arguments: list[Any] = [operands[name] for name in POSITIONAL]
    keywords: dict[str, Any] = {name: settings[name] for name in ("training", "momentum", "eps")}
    if not settings["keywords"]:
        arguments, keywords = [*arguments, *keywords.values()], {}
    mode = {"grad": torch.enable_grad, "no_grad": torch.no_grad, "inference_mode": torch.inference_mode}
    try:
        with mode[settings["grad_mode"]]():
            y = function(*arguments, **keywords)
        # At once: what is still being written, or moved, was not there in time.
        if type(y) is not Tensor:
            call.facts["type"] = type(y).__name__
            return
        call.at_once["output"] = _copy(y)
        call.at_once |= {name: _copy(t) for name in RUNNING if (t := operands[name]) is not None}
    except Exception as error:
        call.facts["refused"] = _refusal(error)
        return
    call.handed_out["output"] = y
    call.facts["device"] = y.device.type
    places = {name: t.untyped_storage().data_ptr() for name, t in operands.items() if t is not None and t.numel()}
    call.facts["aliases"] = [name for name, place in places.items() if place == y.untyped_storage().data_ptr()]


def _backward(call: _Call) -> None:
    y, settings = call.handed_out.get("output"), call.settings
    wanted = {name: leaf for name, leaf in call.leaves.items() if name in settings["wanted"]}
    if y is None or settings["grad_mode"] != "grad" or call.grad_output is None or not wanted:
        return
    if not y.requires_grad:
        call.facts["without"] = list(wanted)
        return
    try:
        with _overwritten(y) if settings["overwritten"] else contextlib.nullcontext():
            gradients = _gradients(y, wanted, call.grad_output, settings["backward"])
    except Exception as error:
        call.facts["refused"] = f"{_refusal(error)} (in the backward)"
        return
    call.facts["without"] = [name for name, gradient in gradients.items() if gradient is None]
    for name, gradient in gradients.items():
        if gradient is not None:
            call.handed_out[GRADIENTS[name]] = gradient
            call.at_once[GRADIENTS[name]] = _copy(gradient)


@contextlib.contextmanager
def _overwritten(y: Tensor) -> Iterator[None]:
    """The output as NaN inside the block: autograd refuses the backward of who keeps it, and says why."""
    before = _copy(y)
    with torch.no_grad():
        y.fill_(torch.nan)
    try:
        yield
    finally:
        with torch.no_grad():
            y.copy_(before)


def _gradients(y: Tensor, wanted: Tensors, grad_output: Tensor, how: str) -> dict[str, Tensor | None]:
    if how == "accumulated":
        for leaf in wanted.values():
            leaf.grad = None
        y.backward(grad_output)
        return {name: leaf.grad for name, leaf in wanted.items()}
    leaves = list(wanted.values())
    if how == "twice":
        torch.autograd.grad(y, leaves, grad_output, retain_graph=True, allow_unused=True)
    return dict(zip(wanted, torch.autograd.grad(y, leaves, grad_output, allow_unused=True), strict=True))


def _note_operands(call: _Call) -> None:
    """Operands as they are after a call and its backward, and which of them were written to, be it the same again."""
    operands = {**call.operands, "grad_output": call.grad_output}
    call.in_the_end |= {name: _copy(t) for name, t in operands.items() if t is not None}
    versions = call.versions.items()
    call.facts["written"] = [name for name, v in versions if (t := operands[name]) is not None and t._version != v]


def _refusal(error: Exception) -> str:
    """What was raised, in one line."""
    words = (str(error).strip().splitlines() or [""])[0][:200]
    name = NOT_IMPLEMENTED if isinstance(error, NotImplementedError) else type(error).__name__
    return f"{name}: {words}" if words else name


def forget_compiled() -> None:
    """Let torch.compile start again: it gives up after a few shapes and settings, and what is timed comes later."""
    if compiler := sys.modules.get("torch._dynamo"):
        compiler.reset()

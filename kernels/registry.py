"""Find implementations: the files and folders beside this one, those of `peers/`, or anyone's file."""

from __future__ import annotations

import copyreg
import difflib
import functools
import importlib
import inspect
import os
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from kernels.contract import BatchNormFunction, BlockFunction, Implementation
from kernels.files import BrokenImplementationError as BrokenImplementationError
from kernels.files import import_file, imported_beside


def _by_name(implementation: Implementation) -> tuple[Callable[[str], Implementation], tuple[str]]:
    return load, (implementation.spec or implementation.name,)


# Pickled and copied by name: a layer can travel although functions of a user's file can't.
copyreg.pickle(Implementation, _by_name)

PEERS = "kernels.peers"


class UnknownImplementationError(LookupError):
    """No implementation has this name."""


@functools.cache
def _registered(package: str = "kernels") -> dict[str, Implementation]:
    folder = Path(__file__).parent.parent.joinpath(*package.split("."))
    implementations = []
    for module in pkgutil.iter_modules([str(folder)]):
        if module.name.startswith("_"):
            continue  # a part of an implementation, which imports it when it runs
        implementation = getattr(importlib.import_module(f"{package}.{module.name}"), "IMPLEMENTATION", None)
        if implementation is not None:
            implementations.append(replace(implementation, spec=implementation.name, peer=package == PEERS))
    return {i.name: i for i in sorted(implementations, key=lambda i: (i.order, i.name))}


def registered() -> tuple[Implementation, ...]:
    """What `load` gives by name."""
    return (*_registered().values(), *_registered(PEERS).values())


def names() -> tuple[str, ...]:
    """The names of the project's own implementations, in the order of every table."""
    return tuple(_registered())


def peer_names() -> tuple[str, ...]:
    """The names of the peers, other people's batch norms, in the order of every table; no package need be there."""
    return tuple(_registered(PEERS))


def load(spec: str) -> Implementation:
    """An implementation by name, or from a file.

    Args:
        spec: A name out of `names()` or `peer_names()`; `FILE.py:FUNCTION`; or `FILE.py`, when that file has an
            `IMPLEMENTATION` or a function `batch_norm`. `FUNCTION_block` is its block, and enough alone. The file
            may be a link, and import what lies beside it.

    Raises:
        UnknownImplementationError: No such name; the message lists the names and the nearest match.
        BrokenImplementationError: The file is missing, fails to import, lacks the function, or the function
            can't be called like `torch.nn.functional.batch_norm`.
    """
    path, _, function = spec.rpartition(":") if ".py:" in spec else (spec, "", "")
    if path.endswith(".py"):
        return _load_file(Path(os.path.abspath(path)), function)  # noqa: PTH100 - `resolve` would follow a link
    known = _registered() | _registered(PEERS)
    if spec in known:
        return known[spec]
    near = difflib.get_close_matches(spec, known, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise UnknownImplementationError(
        f"no implementation {spec!r}{hint}; known: {', '.join(known)}, or FILE.py:FUNCTION"
    )


def label(spec: str) -> str:
    """The row label of what `load(spec)` gives, also when loading fails. No folder of this machine in it."""
    return Path(spec).name if ".py" in spec else spec


def files_of(implementation: Implementation) -> list[Path]:
    """The file of one from outside, and those beside it that have been imported; of our own none."""
    own, dot_py, _ = implementation.spec.rpartition(".py")
    path = Path(own + dot_py)
    return [path, *imported_beside(path)] if dot_py else []


@functools.cache
def _load_file(path: Path, function: str) -> Implementation:
    module = import_file(path)
    spec = f"{path}:{function}" if function else str(path)
    if not function:
        implementation = getattr(module, "IMPLEMENTATION", None)
        if isinstance(implementation, Implementation):
            return replace(implementation, name=label(spec), spec=spec)
        function = "batch_norm"
    batch_norm, block = getattr(module, function, None), getattr(module, f"{function}_block", None)
    if batch_norm is None and callable(block):
        batch_norm = _without_activation(block)
    if not callable(batch_norm):
        raise BrokenImplementationError(f"{path.name} has no function {function!r}, and no {function}_block")
    _check_signature(path.name, function, batch_norm)
    first_line = (inspect.getdoc(batch_norm) or "").split("\n")[0]
    return Implementation(
        name=label(spec),
        summary=first_line or f"{function} of {path.name}",
        batch_norm=batch_norm,
        batch_norm_block=block if callable(block) else None,
        backend=lambda x, training: "user",  # noqa: ARG005 - one signature for all
        spec=spec,
    )


def _without_activation(block: BlockFunction) -> BatchNormFunction:
    """Batch norm alone, of a block; with its signature, which is checked, and its documentation."""

    @functools.wraps(block)
    def batch_norm(*arguments: Any, **settings: Any) -> Tensor:
        return block(*arguments, **settings, activation=None, pool=None)

    return batch_norm


def _check_signature(file: str, name: str, function: Callable[..., Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # built into C: nothing to look at, the gate will call it
    wanted = ["input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"]
    try:
        signature.bind(*wanted[:3], **dict.fromkeys(wanted[3:]))
        signature.bind(*wanted)
    except TypeError as error:
        raise BrokenImplementationError(
            f"{file}:{name} has signature {signature}, not that of F.batch_norm"
            f" ({', '.join(inspect.signature(F.batch_norm).parameters)}): {error}"
        ) from None

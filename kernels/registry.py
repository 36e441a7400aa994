"""Find implementations: the files and folders beside this one, or anyone's file."""

from __future__ import annotations

import copyreg
import difflib
import functools
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch.nn import functional as F

from kernels.contract import Implementation
from kernels.reasons import in_one_line


def _by_name(implementation: Implementation) -> tuple[Callable[[str], Implementation], tuple[str]]:
    return load, (implementation.spec or implementation.name,)


# Pickled and copied by name: a layer can travel although functions of a user's file can't.
copyreg.pickle(Implementation, _by_name)


class UnknownImplementationError(LookupError):
    """No implementation has this name."""


class BrokenImplementationError(Exception):
    """A file that should hold an implementation doesn't: it fails to import, or has another shape."""


@functools.cache
def _registered() -> dict[str, Implementation]:
    folder = Path(__file__).parent
    found = []
    for module in pkgutil.iter_modules([str(folder)]):
        if module.name.startswith("_"):
            continue  # a part of an implementation, which imports it when it runs
        implementation = getattr(importlib.import_module(f"kernels.{module.name}"), "IMPLEMENTATION", None)
        if implementation is not None:
            found.append(replace(implementation, spec=implementation.name))
    return {i.name: i for i in sorted(found, key=lambda i: (i.order, i.name))}


def names() -> tuple[str, ...]:
    """The names of the project's own implementations, in the order of every table."""
    return tuple(_registered())


def load(spec: str) -> Implementation:
    """An implementation by name, or from a file.

    Args:
        spec: A name out of `names()`; `FILE.py:FUNCTION`; or `FILE.py`, when that file has an
            `IMPLEMENTATION` or a function `batch_norm`.

    Raises:
        UnknownImplementationError: No such name; the message lists the names and the nearest match.
        BrokenImplementationError: The file is missing, fails to import, lacks the function, or the function
            can't be called like `torch.nn.functional.batch_norm`.
    """
    path, _, function = spec.rpartition(":") if ".py:" in spec else (spec, "", "")
    if path.endswith(".py"):
        return _load_file(Path(path).resolve(), function)
    if spec in _registered():
        return _registered()[spec]
    near = difflib.get_close_matches(spec, names(), n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise UnknownImplementationError(
        f"no implementation {spec!r}{hint}; known: {', '.join(names())}, or FILE.py:FUNCTION"
    )


def label(spec: str) -> str:
    """The row label of what `load(spec)` gives, also when loading fails. No folder of this machine in it."""
    return Path(spec).name if ".py" in spec else spec


@functools.cache
def _load_file(path: Path, function: str) -> Implementation:
    module = _import_file(path)
    spec = f"{path}:{function}" if function else str(path)
    if not function:
        implementation = getattr(module, "IMPLEMENTATION", None)
        if isinstance(implementation, Implementation):
            return replace(implementation, name=label(spec), spec=spec)
        function = "batch_norm"
    found = getattr(module, function, None)
    if not callable(found):
        raise BrokenImplementationError(f"{path.name} has no function {function!r}")
    _check_signature(path.name, function, found)
    block = getattr(module, f"{function}_block", None)
    first_line = (inspect.getdoc(found) or "").split("\n")[0]
    return Implementation(
        name=label(spec),
        summary=first_line or f"{function} of {path.name}",
        batch_norm=found,
        batch_norm_block=block if callable(block) else None,
        backend=lambda x, training: "user",  # noqa: ARG005 - one signature for all
        spec=spec,
    )


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise BrokenImplementationError(f"no file {path.name} in {path.parent.name or path.parent}/")
    # The path is part of the module's name, so that two files of one name don't take each other's place.
    module_name = f"bnbench_implementation_{abs(hash(path)):x}_{path.stem}"
    import_spec = importlib.util.spec_from_file_location(module_name, path)
    assert import_spec is not None
    assert import_spec.loader is not None
    module = importlib.util.module_from_spec(import_spec)
    sys.modules[module_name] = module
    try:
        import_spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[module_name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise BrokenImplementationError(
            f"{path.name} does not import: {type(error).__name__}: {in_one_line(error)}"
        ) from error
    return module


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

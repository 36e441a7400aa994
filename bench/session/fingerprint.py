"""The names that measured calls look up, and the object behind each: in our own modules, in torch's, in Python's.

A file need not replace `torch.batch_norm` to slow the baseline down: it may give `torch.nn.functional` another `torch`,
or a function other code, defaults or closure. So we compare every name that a batch norm, LeNet's layers, autograd, a
clock or our own measurement could look up, not a hand-written list.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch.backends import PropModule

from kernels import Implementation
from kernels.registry import registered

OURS = ("bench.", "kernels.", "models.")
"""Packages in which nothing may be replaced, constants included."""

TORCHS = (
    "torch",
    "torch._C",
    "torch._C._autograd",
    "torch._C._functions",
    "torch._C._nn",
    "torch._C._VariableFunctions",
    "torch._jit_internal",
    "torch._ops",
    "torch._tensor",
    "torch.autograd",
    "torch.autograd.function",
    "torch.autograd.grad_mode",
    "torch.autograd.graph",
    "torch.backends",
    "torch.backends.cudnn",
    "torch.backends.mkldnn",
    "torch.cuda",
    "torch.cuda.graphs",
    "torch.cuda.streams",
    "torch.nn",
    "torch.nn.functional",
    "torch.nn.init",
    "torch.nn.modules.activation",
    "torch.nn.modules.batchnorm",
    "torch.nn.modules.container",
    "torch.nn.modules.conv",
    "torch.nn.modules.flatten",
    "torch.nn.modules.linear",
    "torch.nn.modules.module",
    "torch.nn.modules.pooling",
    "torch.nn.modules.utils",
    "torch.nn.parameter",
    "torch.overrides",
    "torch.utils._contextlib",
    "torch.utils._python_dispatch",
)
PYTHONS = (
    "builtins",
    "contextlib",
    "functools",
    "gc",
    "io",
    "itertools",
    "json",
    "json.encoder",
    "math",
    "os",
    "pickle",
    "random",
    "socket",
    "statistics",
    "struct",
    "time",
)
"""Modules whose functions, classes and modules may not be replaced."""

LAZY = frozenset(
    {
        "torch.Storage",
        "torch.manual_seed",
        "torch.nn.modules.module.Module.__init__",
        "torch.nn.modules.module.Module.__setstate__",
    }
)
"""What torch itself replaces when its compiler is first used, or the default dtype set; no timed call passes them."""


class _Parts:
    """What a function consists of: its code, its defaults, and the functions that it encloses."""

    def __init__(self, function: types.FunctionType) -> None:
        self.function = function
        self._own = function.__code__, function.__defaults__, function.__kwdefaults__
        # Only cells that hold functions: others may count something.
        self._cells = [(cell, cell.cell_contents) for cell in function.__closure__ or () if _holds_function(cell)]

    def restored(self) -> bool:
        """Whether it had to be restored."""
        f, (code, defaults, keywords) = self.function, self._own
        same = f.__code__ is code and f.__defaults__ is defaults and f.__kwdefaults__ is keywords
        if same and all(_content(cell) is content for cell, content in self._cells):
            return False
        f.__code__, f.__defaults__, f.__kwdefaults__ = self._own
        for cell, content in self._cells:
            cell.cell_contents = content
        return True


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None


def _holds_function(cell: Any) -> bool:
    return isinstance(_content(cell), types.FunctionType)


class Fingerprint:
    """Every such name with what was behind it when it was last taken."""

    def __init__(self) -> None:
        self._values: dict[tuple[int, str], tuple[str, Any, str, Mapping[str, Any], Any]] = {}
        self._parts: dict[int, tuple[str, _Parts]] = {}

    def take(self) -> None:
        """Take the current state as the correct one."""
        for label, owner, name, value in _names():
            if label not in LAZY:
                there = owner if isinstance(owner, dict) else vars(owner)
                first = self._values.get((id(owner), name))  # others import it under names of their own
                self._values[id(owner), name] = (first[0] if first else label, owner, name, there, value)
                if isinstance(value, types.FunctionType):
                    self._parts[id(value)] = (f"{value.__module__}.{value.__name__}", _Parts(value))

    def restore(self) -> list[str]:
        """Restore replaced objects, and return their names."""
        replaced = []
        for label, owner, name, there, value in self._values.values():
            if there.get(name) is not value:
                replaced.append(label)
                _put(owner, name, value)
        replaced += [label for label, parts in self._parts.values() if parts.restored()]
        return replaced


def _names() -> Iterator[tuple[str, Any, str, Any]]:
    """Of each name: what it is called, what owns it, its name there, and what is behind it."""
    for implementation in registered():  # copies of those in the modules
        yield from _attributes(f"kernels.{implementation.name}.IMPLEMENTATION", implementation)
    for module_name, module in _modules():
        ours = module_name.startswith(OURS)
        for name, value in list(vars(module).items()):
            if name.startswith("__") or not (ours or _is_code(value)):
                continue
            if not isinstance(value, types.ModuleType) or value.__name__ != f"{module_name}.{name}":
                yield f"{module_name}.{name}", module, name, value
            if isinstance(value, type) and value.__module__ in (module_name, "torch", "torch._C"):
                yield from _attributes(f"{value.__module__}.{value.__qualname__}", value)
            if ours and isinstance(value, dict) and not name.startswith("_"):  # those are caches
                for key, content in value.items():
                    yield f"{module_name}.{name}[{key!r}]", value, key, content
            if isinstance(value, Implementation):
                known = value.name if value.name.isidentifier() else name
                yield from _attributes(f"kernels.{known}.IMPLEMENTATION", value)


def _modules() -> Iterator[tuple[str, types.ModuleType]]:
    """The modules that count; with properties of its own, torch puts an object in the place of one."""
    for name, module in list(sys.modules.items()):
        if (name.startswith(OURS) or name in (*TORCHS, *PYTHONS)) and isinstance(module, types.ModuleType):
            yield name, module.m if isinstance(module, PropModule) else module


def _attributes(label: str, owner: Any) -> Iterator[tuple[str, Any, str, Any]]:
    for name, value in list(vars(owner).items()):
        if _is_code(value) or hasattr(type(value), "__get__"):  # as properties have
            yield f"{label}.{name}", owner, name, value


def _is_code(value: Any) -> bool:
    return isinstance(value, types.ModuleType) or callable(value)


def _put(owner: Any, name: str, value: Any) -> None:
    if isinstance(owner, type):
        setattr(owner, name, value)
    elif isinstance(owner, dict):
        owner[name] = value
    else:
        vars(owner)[name] = value  # an `Implementation` is frozen

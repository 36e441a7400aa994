"""Import any file as if it were a script: from any folder, together with the files beside it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

from kernels.reasons import in_one_line

_folders: list[str] = []
"""Of such files, as they stand in `sys.path`: last, so that none takes the place of a module of ours or a library."""


class BrokenImplementationError(Exception):
    """A file that should hold an implementation doesn't: it fails to import, or has another shape."""


def import_file(path: Path) -> ModuleType:
    """Import a file of any name and ending.

    Args:
        path: Absolute. A link is named as it is called, and finds what lies beside it and beside its target.

    Raises:
        BrokenImplementationError: It is missing, or what it raises when it is imported.
    """
    if not path.is_file():
        raise BrokenImplementationError(f"no file {path.name} in {path.parent.name or path.parent}/")
    _find_beside(path)
    name = _module_name(path)
    loader = SourceFileLoader(name, str(path))  # given, since a link may lead to any ending
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise BrokenImplementationError(
            f"{path.name} does not import: {type(error).__name__}: {in_one_line(error)}"
        ) from error
    return module


def imported_beside(path: Path) -> list[Path]:
    """The files beside one, or in folders beside it, that this process has imported, without itself."""
    folders = [path.parent, path.resolve().parent]
    files = set()
    for module in list(sys.modules.values()):
        file = _file_of(module)
        if file.parent in folders or any(str(f) in _folders and f in file.parents for f in folders):
            files.add(file)
    return sorted(files - {path, path.resolve()})


def _find_beside(path: Path) -> None:
    """Let a file import modules beside it, and not modules of the same name beside another file."""
    own = [str(folder) for folder in dict.fromkeys((path.parent, path.resolve().parent))]
    for folder in reversed(own):
        if folder in _folders:
            _folders.remove(folder)
            sys.path.remove(folder)
        if folder not in sys.path:
            place = min((sys.path.index(other) for other in _folders), default=len(sys.path))
            sys.path.insert(place, folder)
            _folders.insert(0, folder)
    others = set(_folders) - set(own)
    for name, module in list(sys.modules.items()):
        beside_another = str(_file_of(module).parent) in others
        if name != path.stem and beside_another and any(Path(folder, f"{name}.py").is_file() for folder in own):
            del sys.modules[name]
    importlib.invalidate_caches()


def _file_of(module: ModuleType) -> Path:
    """The file of a module, from its dictionary: asking a lazy module for an attribute would import it."""
    return Path(vars(module).get("__file__") or "/")


def _module_name(path: Path) -> str:
    """The module's own name where other processes can import it by that, so that functions can be pickled; else ours.

    Ours contains the path, so that two files of one name don't collide.
    """
    if path.stem.isidentifier() and path.stem not in sys.modules:
        spec = importlib.util.find_spec(path.stem)
        if spec and spec.origin and Path(spec.origin) == path:
            return path.stem
    return f"bnbench_implementation_{abs(hash(path)):x}_{path.stem}"

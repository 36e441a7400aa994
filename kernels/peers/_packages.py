"""Whether the package of a peer is there."""

from __future__ import annotations

from importlib import metadata, util

from kernels.peers import INSTALL


def why_missing(remedy: str = INSTALL, /, **least: tuple[int, ...]) -> str | None:
    """None if all these packages are installed in at least these versions, or one line with what to do.

    Imports none of them.

    Args:
        remedy: The command that installs them.
        least: By the name under which a package is imported.
    """
    for name, wanted in least.items():
        if util.find_spec(name) is None:
            return f"{name} is not installed: {remedy}"
        found = _version(name)
        if found is not None and found < wanted:
            words = [".".join(map(str, version)) for version in (found, wanted)]
            return f"{name} {words[0]} is older than {words[1]}: {remedy}"
    return None


def _version(name: str) -> tuple[int, ...] | None:
    try:
        parts = metadata.version(name).split(".")[:3]
    except metadata.PackageNotFoundError:
        return None
    return tuple(int(part) for part in parts if part.isdigit())

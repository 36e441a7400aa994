"""Whether a package that not everybody needs is installed, asked without importing it."""

from __future__ import annotations

import re
from importlib import metadata

from kernels.peers import INSTALL


def why_missing(remedy: str = INSTALL, /, **least: str) -> str | None:
    """None if all these packages are installed in at least these versions, or one line with what to do.

    Args:
        remedy: The command that installs them.
        least: The oldest version by the name of the distribution.
    """
    for name, oldest in least.items():
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            return f"{name} is not installed: {remedy}"
        if _numbers(version) < _numbers(oldest):
            return f"{name} {version} is older than {oldest}: {remedy}"
    return None


def with_version(runtime: str, package: str) -> str:
    """What runs underneath, for a record: "XLA, jax 0.10.2", or without the package "XLA"."""
    try:
        return f"{runtime}, {package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return runtime


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)[:3]]

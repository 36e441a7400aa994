"""Every implementation that can run here goes through the same suite, on each device of this machine.

    pytest tests/kernels                                    the project's own
    BNBENCH_IMPL=my_bn.py:batch_norm pytest tests/kernels   anyone's file in their place

A test that takes `implementation` and `device` runs for every pair; a new file in kernels/ needs no edit here.
What can't run here is left out of them and is one skip with its reason in `test_availability.py`.

A test that also takes `case` has the mark `cases(core, more)`, two dicts of id to case. Implementations
that compile, which takes seconds for each new shape, type or mode, get `core` only; all others get both.
"""

import os
from typing import Any

import pytest
import torch

import kernels
from kernels import Implementation

DEVICES = [torch.device(type_) for type_ in ("cpu", "cuda") if type_ == "cpu" or torch.cuda.is_available()]
COMPILING_BACKENDS = ("inductor", "triton, FP fusion")


def under_test() -> list[Implementation]:
    """The project's own implementations, or the one that BNBENCH_IMPL names."""
    asked = os.environ.get("BNBENCH_IMPL")
    return [kernels.load(spec) for spec in ([asked] if asked else kernels.names())]


def compiles(implementation: Implementation, device: torch.device) -> bool:
    """Whether a new shape costs this implementation seconds."""
    return implementation.backend(torch.zeros(2, 2, device=device), True) in COMPILING_BACKENDS


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "cases(core, more): cases of a conformance test; compiling implementations get the core"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize over implementations, devices and cases."""
    if "implementation" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("cases")
    core: dict[str, Any] = mark.kwargs["core"] if mark else {"": None}
    more: dict[str, Any] = mark.kwargs.get("more", {}) if mark else {}
    wanted = [n for n in ("implementation", "device", "case") if n in metafunc.fixturenames]
    rows, ids = [], []
    for device in DEVICES if "device" in wanted else DEVICES[:1]:
        for implementation in under_test():
            if implementation.why_unavailable(device):
                continue
            cases = core if compiles(implementation, device) else core | more
            for case_id, case in cases.items():
                row = {"implementation": implementation, "device": device, "case": case}
                rows.append([row[n] for n in wanted])
                ids.append("-".join(filter(None, [implementation.name, device.type, case_id])))
    metafunc.parametrize(wanted, rows, ids=ids)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many cases of the suite each implementation passed."""
    passed = [report.nodeid for report in terminalreporter.stats.get("passed", [])]
    counts = {i.name: sum(f"[{i.name}-" in nodeid for nodeid in passed) for i in under_test()}
    if any(counts.values()):
        terminalreporter.write_line("conformance cases passed: " + ", ".join(f"{n} {k}" for n, k in counts.items()))


@pytest.fixture
def cpu() -> torch.device:
    return torch.device("cpu")

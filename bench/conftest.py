"""The main job's options, fixtures and folder of results, and how a run ends."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import warnings
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from bench import ROOT, report
from bench.measure import environment
from bench.measure.context import Context
from bench.measure.efforts import EFFORTS
from bench.record.labels import BASELINE
from bench.record.records import FILE, OK, UNAVAILABLE, Journal, Record, RecordsError, RecordsWarning, exclusive
from bench.session import time_limit
from bench.session.candidate import Candidate
from bench.session.gate import Gate
from bench.session.isolation import Isolation
from bench.session.networks import networks
from bench.session.options import CELL_SECONDS, DTYPES, QUICK_IMAGES
from bench.session.options import pytest_addoption as pytest_addoption
from bench.session.precedence import precedence
from bench.session.roster import candidates, left_out
from bench.session.run import DeviceLostError, Run, took_the_device
from bench.session.selection import Selection, check_memory, selected
from bench.session.ways import ways
from bench.view import tables
from kernels import UnknownImplementationError
from kernels.triton_fused import interpreted
from models import allocator, fashion_mnist
from models import device as devices
from models.fashion_mnist import DataError, FashionMNIST
from models.networks import Network, NetworkSpec

CANDIDATES = pytest.StashKey[list[Candidate]]()
WAYS = pytest.StashKey[list[Candidate]]()
ISOLATION = pytest.StashKey[Isolation]()
SELECTION = pytest.StashKey[Selection]()
DATA = pytest.StashKey[FashionMNIST]()
RUN = pytest.StashKey[Run]()
ENDED_BY = pytest.StashKey[signal.Signals]()
ENDINGS = {signal.SIGINT: 130, signal.SIGTERM: 143}
OUT_OF_TIME = pytest.StashKey[bool]()
DISARM = pytest.StashKey[Callable[[], None]]()
LEFT = pytest.StashKey[set[str]]()
NETWORKS = pytest.StashKey[dict[NetworkSpec, Network]]()


def pytest_configure(config: pytest.Config) -> None:
    """Refuse unusable options before anything runs, and open the results folder."""
    option = config.option
    if option.help:
        return
    # Its table takes a screen for every few of our rows; --benchmark-verbose shows it.
    option.benchmark_quiet = not option.benchmark_verbose
    if interpreted():
        raise pytest.UsageError(
            "TRITON_INTERPRET is set, but Triton's interpreter is for correctness only: unset it to measure"
        )
    try:
        device = devices.select(option.device)
        if option.threads:
            torch.set_num_threads(option.threads)
        config.stash[SELECTION] = selected(
            option.shape, option.block, option.memory_format, quick=option.quick, gpu=device.type == "cuda"
        )
        root = Path(option.results_dir or ROOT / "results" / ("quick" if option.quick else ""))
        folder = root.resolve() / environment.machine(device)
        isolation = Isolation(
            everyone=option.isolate,
            timeout_seconds=option.cell_timeout or CELL_SECONDS[option.network],
            device=option.device,
            dtype=DTYPES[option.dtype],
            data_dir=option.data_dir,
            limit=QUICK_IMAGES if option.quick else None,
            effort=EFFORTS.choose(device, quick=option.quick),
            also=took_the_device(folder / FILE) if option.resume else (),
        )
        config.stash[ISOLATION] = isolation
        config.stash[NETWORKS] = networks(option.model, option.input, device)
        config.stash[CANDIDATES] = candidates(option.impl, device, isolation)
        config.stash[WAYS] = ways(config.stash[CANDIDATES], device, isolation, option.impl)
        for candidate in [*config.stash[CANDIDATES], *config.stash[WAYS]]:
            if candidate.child:
                config.add_cleanup(candidate.child.close)
        if option.collectonly:
            return
        if config.stash[SELECTION].asked:
            processes = 1 + any(candidate.child for candidate in config.stash[CANDIDATES])
            check_memory(config.stash[SELECTION].operations, DTYPES[option.dtype], device, processes)
        allocator.settle()
        config.add_cleanup(exclusive(folder).release)
        journal = Journal(folder)
    except (ValueError, UnknownImplementationError, RecordsError, devices.DeviceUnavailableError) as error:
        raise pytest.UsageError(str(error)) from None
    conditions = environment.conditions(device) | {"quick": option.quick}
    config.stash[RUN] = Run(journal, conditions, resume=option.resume)
    for number in ENDINGS:
        signal.signal(number, functools.partial(_end, config))
    if option.time_limit:
        config.stash[DISARM] = time_limit.alarm(option.time_limit, functools.partial(_out_of_time, config))
        config.pluginmanager.register(time_limit.Heard(config.stash[DISARM]))


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say what is measured otherwise than it was asked for, and which peers are not there."""
    if SELECTION not in config.stash:
        return None
    peers = left_out(config.option.impl, devices.find(config.option.device))
    return "\n".join(filter(None, [config.stash[SELECTION].note, peers])) or None


def _end(config: pytest.Config, number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
    # Not pytest.exit(): its exception is an ordinary one, which the handling of broken implementations would catch.
    config.stash[ENDED_BY] = signal.Signals(number)
    raise KeyboardInterrupt


def _out_of_time(config: pytest.Config) -> None:
    config.stash[OUT_OF_TIME] = True


def pytest_exception_interact(node: pytest.Item, call: pytest.CallInfo[Any], report: pytest.TestReport) -> None:
    """End the run when a measurement can't be written or the device is lost, since the next one would fail too."""
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, RecordsError):
        report.longrepr = str(error)
        node.session.shouldstop = f"{error}; finished measurements are safe; --resume continues"
    elif isinstance(error, DeviceLostError):
        report.longrepr = str(error)
        node.session.shouldstop = str(error)
    elif RUN in node.config.stash and (reason := devices.why_lost(devices.find(node.config.option.device))):
        node.session.shouldstop = f"the device is lost: {reason}; finished measurements are safe; --resume continues"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Don't begin a measurement after a signal that was dropped: see `time_limit.alarm`."""
    if ENDED_BY in item.config.stash:
        raise KeyboardInterrupt


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Count a finished measurement as done."""
    item.config.stash[LEFT].discard(item.nodeid)


def _place(item: pytest.Item) -> tuple[Any, ...]:
    """The place of a test: the more informative, the earlier, and otherwise as in its file."""
    callspec: Any = getattr(item, "callspec", None)
    parameters, numbers = (callspec.params, callspec.indices) if callspec else ({}, {})
    # All parameters of a test are given together, so either of these has its number; plug-ins may add others.
    number = max((numbers[name] for name in ("candidate", "point") if name in numbers), default=0)
    line = item.reportinfo()[1] or 0
    return precedence(item.path.stem, parameters), str(item.path), line, number


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the studies out of the main job: they take an hour, and run when their folder is named."""
    if collection_path.name == "test_model.py" and not config.option.model:
        return True
    named = {part for argument in config.args for part in Path(argument.partition("::")[0]).parts}
    return True if collection_path.name in {"studies", "lesson"} - named else None


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, object, object]:
    """Exit as a program does that a signal ended; a run that keeps to its time limit exits normally."""
    stash = session.config.stash
    stash.get(DISARM, lambda: None)()  # first: the run is already ending cleanly
    result = yield
    if OUT_OF_TIME in stash:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED if session.testsfailed else pytest.ExitCode.OK
    elif ENDED_BY in stash:
        session.exitstatus = ENDINGS[stash[ENDED_BY]]
    return result


@pytest.hookimpl(trylast=True)  # after plug-ins that shuffle
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Sort tests by importance, even if a plug-in has shuffled them; load the data first if any test needs it.

    So bad data is noticed at once.
    """
    items.sort(key=_place)
    config.stash[LEFT] = {item.nodeid for item in items}
    if config.option.collectonly or not any("data" in getattr(i, "fixturenames", ()) for i in items):
        return
    try:
        config.stash[DATA] = fashion_mnist.load(
            config.option.data_dir,
            device=devices.find(config.option.device),
            limit=QUICK_IMAGES if config.option.quick else None,
        )
    except DataError as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def data(pytestconfig: pytest.Config) -> FashionMNIST:
    """The training data."""
    return pytestconfig.stash[DATA]


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Run:
    """The run that measurements are appended to."""
    return pytestconfig.stash[RUN]


@pytest.fixture(scope="session")
def baseline(pytestconfig: pytest.Config) -> Candidate:
    """The implementation that all others are compared with."""
    return next(c for c in pytestconfig.stash[CANDIDATES] if c.label == BASELINE)


@pytest.fixture(scope="session")
def context(pytestconfig: pytest.Config, baseline: Candidate) -> Context:
    """The device, the baseline and the data of all measurements."""
    option, stash = pytestconfig.option, pytestconfig.stash
    device = devices.find(option.device)
    return Context(
        device,
        baseline.implementation,
        lambda: stash[DATA],
        DTYPES[option.dtype],
        EFFORTS.choose(device, quick=option.quick),
    )


@pytest.fixture(scope="session")
def gate(pytestconfig: pytest.Config) -> Gate:
    """The gate before a network is trained or a step of LeNet is timed."""
    return Gate(devices.find(pytestconfig.option.device), dtype=DTYPES[pytestconfig.option.dtype])


@pytest.fixture(scope="session")
def progress(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """Writes a line to the terminal at once, although pytest captures what tests print."""
    reporter = pytestconfig.pluginmanager.get_plugin("terminalreporter")
    capture = pytestconfig.pluginmanager.get_plugin("capturemanager")

    def show(line: str) -> None:
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            if reporter:
                reporter.ensure_newline()
                reporter.write_line(line)
                reporter.flush()

    return show


def outcome(record: Record) -> None:
    """End a test as its record says: pass, skip what this device lacks, or fail what is wrong."""
    if record["status"] == UNAVAILABLE:
        pytest.skip(f"{record['implementation']}: {record['reason']}")
    if record["status"] != OK:
        pytest.fail(f"{record['implementation']}: {record['reason']}", pytrace=False)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Rebuild the tables from the records, show the short ones, and say where they are."""
    if OUT_OF_TIME in config.stash:
        left = tables.counted(len(config.stash[LEFT]), "measurement")
        terminalreporter.write_line(f"time limit of {config.option.time_limit} s: {left} left; --resume continues")
    elif ENDED_BY in config.stash:
        terminalreporter.write_line(f"ended by {config.stash[ENDED_BY].name}; finished measurements are in the records")
    for candidate in [*config.stash.get(CANDIDATES, []), *config.stash.get(WAYS, [])]:
        if candidate.child:  # now, so that no child writes to the terminal while pages are made
            candidate.child.close()
    if RUN not in config.stash or not config.stash[RUN].journal.records:
        return
    try:
        if damage := config.stash[RUN].journal.mend():
            terminalreporter.write_line(f"{FILE} {damage} during the run: the suite has restored its records")
    except RecordsError as error:
        terminalreporter.write_line(str(error))
        return
    folder = config.stash[RUN].journal.folder
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordsWarning)  # said when the folder was opened
        try:
            written, digest = report.build(folder, config.stash[RUN].id)
        except RecordsError as error:
            terminalreporter.write_line(f"{error}; `python -m bench.report` makes the tables once it can")
            return
    terminalreporter.section("bnbench")
    terminalreporter.write_line(digest)
    terminalreporter.write_line("")
    terminalreporter.write_line(f"{os.path.relpath(folder)}: {report.made(written)} from {FILE}")

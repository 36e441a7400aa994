"""How `cpu_fused` gets its library: which compiler, what is said where that fails, the cache, and no collisions.

A compilation takes seconds of two cores. Where a test is not about its result, the compiler hands out a copy of the
library that this process has made already.
"""

import ctypes
import functools
import re
import shutil
import stat
import sys
import textwrap
import threading
import time

import filelock
import pytest
import torch

import kernels
from kernels.cpu_fused import compilation, library
from kernels.problems import make_problem
from tests.kernels.conformance import assert_conforms
from tests.processes import run, start

CPU = torch.device("cpu")
IMPLEMENTATION = kernels.load("cpu_fused")
pytestmark = pytest.mark.skipif(
    bool(IMPLEMENTATION.why_unavailable(CPU)), reason=str(IMPLEMENTATION.why_unavailable(CPU))
)
READY = None if IMPLEMENTATION.why_unavailable(CPU) else library.load(torch.float32)._name
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the compilers here are shell scripts")

SAY_WHY = """
    import torch, kernels
    print(kernels.load("cpu_fused").why_unavailable(torch.device("cpu")))
"""


def compiler_that(tmp_path, script):
    path = tmp_path / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def copier(tmp_path, at_once=1):
    """A compiler that copies the library of this process: half of it, and the rest once so many have been called."""
    calls = tmp_path / "calls"
    return compiler_that(
        tmp_path,
        f'for last in "$@"; do :; done; echo "$last" >> {calls}; head -c 1000 {READY} > "$last"\n'
        f"for _ in $(seq 600); do [ $(wc -l < {calls}) -ge {at_once} ] && break; sleep 0.1; done\n"
        f'cat {READY} > "$last"',
    )


def compilations(tmp_path):
    return len((tmp_path / "calls").read_text().splitlines())


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """In this test nothing is loaded yet and the cache is empty."""
    monkeypatch.setenv("BNBENCH_CACHE", str(tmp_path / "cache"))
    for name in ("load", "why_not"):
        monkeypatch.setattr(library, name, functools.cache(getattr(library, name).__wrapped__))


# --- The compiler ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("empty_cache")
def test_a_compiler_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent")
    reason = IMPLEMENTATION.why_unavailable(CPU)
    assert reason == "no C++ compiler: CXX is '/nonexistent', which is no program here"


def test_what_compiles_for_float_compiles_for_other_types():
    """A mistake in the C++ for one type would not be seen: torch's operations would take its place."""
    assert library.why_not(torch.float64) is None
    assert library.why_not(torch.bfloat16) is None
    assert "Half" in (library.why_not(torch.float16) or "Half")  # which some compilers don't know


@linux_only
@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo 'rows.h:1:2: fatal error: out of luck' >&2; exit 3",
            "exit code 3: rows.h:1:2: fatal error",
        ),
        ("exit 1", "it says nothing"),
        ("exit 0", "it says nothing"),
        ('for last in "$@"; do :; done; echo nonsense > "$last"', "file too short"),
    ],
    ids=["its error", "silent", "makes nothing", "makes nonsense"],
)
def test_a_compiler_that_fails_is_quoted_in_one_line(tmp_path, monkeypatch, script, words):
    monkeypatch.setenv("CXX", str(compiler_that(tmp_path, script)))
    reason = IMPLEMENTATION.why_unavailable(CPU)
    assert len(reason.splitlines()) == 1
    assert words in reason
    assert not list(tmp_path.glob("cache/kernels/tmp*")), "what a failed compiler left"


@linux_only
@pytest.mark.usefixtures("empty_cache")
def test_optional_flags_that_a_compiler_does_not_know_are_left_out(tmp_path, monkeypatch):
    real = " ".join(compilation.compiler())
    script = f'case "$*" in *openmp*|*native*) echo "error: unknown flag" >&2; exit 1;; esac; exec {real} "$@" -O1'
    monkeypatch.setenv("CXX", str(compiler_that(tmp_path, script)))
    assert_conforms(IMPLEMENTATION, make_problem((64, 6, 24, 24), activation="sigmoid", pool=2))
    assert str(tmp_path) in library.load(torch.float32)._name
    assert "one thread: no OpenMP" in IMPLEMENTATION.backend(torch.zeros(2, 2), True)


@linux_only
def test_there_is_one_openmp_runtime():
    maps = run("""
        import ctypes, torch, kernels
        assert kernels.load("cpu_fused").why_unavailable(torch.device("cpu")) is None
        print(open("/proc/self/maps").read())
    """)
    libraries = {line.split()[-1] for line in maps.splitlines() if "libgomp" in line or "libomp" in line}
    assert len(libraries) == 1, libraries


# --- The cache -------------------------------------------------------------------------------------------------------


@linux_only
@pytest.mark.usefixtures("empty_cache")
def test_an_unwritable_cache_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(copier(tmp_path)))
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("BNBENCH_CACHE", str(tmp_path / "a file" / "cache"))
    assert IMPLEMENTATION.why_unavailable(CPU) is None


@linux_only
def test_the_second_process_compiles_nothing_and_a_damaged_library_is_made_again(tmp_path):
    environment = {"CXX": copier(tmp_path), "BNBENCH_CACHE": tmp_path}
    for _ in range(2):
        assert run(SAY_WHY, **environment) == "None\n"
        assert compilations(tmp_path) == 1
    (kept,) = tmp_path.glob("kernels/*.so")
    kept.write_text("nonsense")
    assert run(SAY_WHY, **environment) == "None\n"
    assert compilations(tmp_path) == 2
    assert ctypes.CDLL(str(kept)).has_openmp() in (0, 1)


UNLOCKED = """
    from kernels.cpu_fused import compilation
    def acquire(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")
    compilation.FileLock.acquire = acquire
"""


@linux_only
@pytest.mark.parametrize(("before", "compiled"), [("", 1), (UNLOCKED, 4)], ids=["locked", "unlocked"])
def test_of_processes_that_need_a_library_at_once_one_compiles_it_or_they_do_not_collide(before, compiled, tmp_path):
    """Where no lock holds, each has written half a library when the last of them begins."""
    environment = {"CXX": copier(tmp_path, at_once=compiled), "BNBENCH_CACHE": tmp_path}
    several = [start("-c", textwrap.dedent(before + SAY_WHY), **environment) for _ in range(4)]
    assert [process.wait() for process in several] == [(0, "None\n")] * 4
    assert compilations(tmp_path) == compiled
    (kept,) = tmp_path.glob("kernels/*.so")
    # Some versions of filelock leave the lock's file.
    assert set(tmp_path.glob("kernels/*")) - {kept.with_suffix(".lock")} == {kept, kept.with_suffix(".seconds")}


class Held:
    """A lock that another process never releases."""

    waits = 0

    def __init__(self, path):
        self.path = path

    def acquire(self, timeout):
        Held.waits += 1
        time.sleep(timeout)
        raise filelock.Timeout(str(self.path))

    def release(self):
        pass


@linux_only
@pytest.mark.usefixtures("empty_cache")
def test_a_process_that_ends_waits_for_no_other_and_compiles_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(copier(tmp_path)))
    monkeypatch.setattr(compilation, "_over", threading.Event())
    monkeypatch.setattr(compilation, "FileLock", Held)
    monkeypatch.setattr(Held, "waits", 0)
    said = []
    waiting = threading.Thread(target=lambda: said.append(library.why_not(torch.float32)), daemon=True)
    waiting.start()
    while not Held.waits:
        time.sleep(0.01)
    compilation.end()
    waiting.join(60)
    assert "the process ends" in said[0]
    assert not (tmp_path / "calls").exists()


@linux_only
@pytest.mark.usefixtures("empty_cache")
def test_a_lock_is_waited_for_no_longer_than_a_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(copier(tmp_path)))
    monkeypatch.setattr(compilation, "_SECONDS", 1)
    monkeypatch.setattr(compilation, "FileLock", Held)
    assert library.why_not(torch.float32) is None


# --- The sources -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [path.name for path in library.sources()])
def test_a_change_of_any_source_is_compiled_again(name, tmp_path, monkeypatch):
    kept = compilation.digest_of(library.sources())
    copy = shutil.copytree(library.SOURCES, tmp_path / "cpp")
    monkeypatch.setattr(library, "SOURCES", copy)
    assert compilation.digest_of(library.sources()) == kept
    (copy / name).write_text((copy / name).read_text("utf-8") + "// changed\n")
    assert compilation.digest_of(library.sources()) != kept


def test_every_include_is_among_the_sources():
    names = {path.name for path in library.sources()}
    included = {name for path in library.sources() for name in re.findall(r'#include "(.*)"', path.read_text("utf-8"))}
    assert included | {library.MAIN} == names


@linux_only
@pytest.mark.usefixtures("empty_cache")
def test_what_the_compiler_took_is_kept_beside_the_library(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(copier(tmp_path)))
    took = library.compile_seconds(torch.float32)
    assert took > 0
    library.load.cache_clear()
    assert library.compile_seconds(torch.float32) == took
    assert compilations(tmp_path) == 1
    for path in tmp_path.glob("cache/kernels/*.seconds"):
        path.unlink()
    assert library.compile_seconds(torch.float32) is None

"""Machines that lack what most have: a home, a cache that takes programs, a compiler's plain name."""

import ctypes
import os
import stat
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

import kernels
from kernels import cache, compiled, routes
from kernels.cpu_fused import compilation, folders, library
from kernels.reasons import in_one_line, without_folders

ROOT = Path(__file__).parents[2]


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    for name in ("BNBENCH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(Path, "home", mock.Mock(side_effect=RuntimeError("Could not determine home directory.")))
    cache._without_home.cache_clear()
    yield tmp_path
    cache._without_home.cache_clear()


def test_a_user_without_a_home_has_a_cache_of_his_own_among_temporary_files(homeless):
    folder = cache.cache_dir()
    assert folder == cache.cache_dir() == homeless / f"bnbench-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_others_can_write_to_is_not_taken(homeless):
    planted = homeless / f"bnbench-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    assert cache.cache_dir() != planted
    assert stat.S_IMODE(cache.cache_dir().stat().st_mode) == 0o700


@pytest.fixture
def compilations(monkeypatch, tmp_path):
    """The output files of compilers that were started; what they make can be loaded."""
    real = kernels.load("cpu_fused")
    if reason := real.why_unavailable(torch.device("cpu")):
        pytest.skip(reason)
    good = library.load(torch.float32)._name
    made = []

    def compile_(arguments):
        made.append(Path(arguments[-1]))
        Path(arguments[-1]).write_bytes(Path(good).read_bytes())

    monkeypatch.setattr(compilation, "_compile", compile_)
    monkeypatch.setenv("BNBENCH_CACHE", str(tmp_path / "cache"))
    folders.temporary.cache_clear()
    yield made
    folders.temporary.cache_clear()


def opened():
    return Path(compilation.opened("cpu_fused", library.sources(), ("c++",), library.FLAGS, ctypes.CDLL)._name)


def test_a_cache_mounted_noexec_is_left_before_anything_is_compiled(compilations, monkeypatch, tmp_path):
    monkeypatch.setattr(folders, "runs_programs", lambda folder: not folder.is_relative_to(tmp_path / "cache"))
    assert not opened().is_relative_to(tmp_path / "cache")
    assert len(compilations) == 1


def test_a_full_cache_is_left_before_anything_is_compiled(compilations, monkeypatch, tmp_path):
    monkeypatch.setattr(folders, "has_room", lambda folder: not folder.is_relative_to(tmp_path / "cache"))
    assert not opened().is_relative_to(tmp_path / "cache")
    assert len(compilations) == 1


def test_a_folder_that_loads_nothing_for_another_reason_costs_a_copy_and_no_compilation(
    compilations, monkeypatch, tmp_path
):
    load = ctypes.CDLL

    def refuses(path):
        if Path(path).is_relative_to(tmp_path / "cache"):
            raise OSError(f"{path}: failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(ctypes, "CDLL", refuses)
    assert not opened().is_relative_to(tmp_path / "cache")
    assert len(compilations) == 1


def test_no_folder_at_all_is_said_in_one_line_without_a_path(compilations, monkeypatch):
    monkeypatch.setattr(folders, "has_room", lambda _folder: False)
    with pytest.raises(compilation.NoFolderError, match="BNBENCH_CACHE or TMPDIR") as found:
        opened()
    assert "/" not in str(found.value)
    assert not compilations


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("g++ 'unfinished", "a shell can't read: No closing quotation"),
        ("/home/someone/bin/g++-99 -O3", "CXX is 'g\\+\\+-99 -O3', which is no program here"),
        ("''", "no program here"),
    ],
)
def test_a_compiler_that_cant_be_read_or_found_is_one_line_without_a_path(monkeypatch, command, words):
    monkeypatch.setenv("CXX", command)
    with pytest.raises(compilation.NoLibraryError, match=words) as found:
        compilation.compiler()
    assert "/" not in str(found.value)


def test_a_compiler_in_a_folder_with_a_space_needs_no_quotes(monkeypatch, tmp_path):
    program = tmp_path / "my compilers" / "c++"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("CXX", str(program))
    assert compilation.compiler() == (str(program),)


def test_reasons_name_no_folder_of_the_machine():
    assert without_folders("'/a/b/c.so: file too short'") == "'c.so: file too short'"
    assert in_one_line(OSError("/opt/x/y.so: failed\nmore")) == "y.so: failed"
    assert in_one_line(KeyError()) == "KeyError"


def test_a_default_device_takes_neither_compiled_nor_kernels_away():
    x = torch.randn(4, 3)
    with torch.device("meta"):
        assert not routes.is_watched(x)
        y = kernels.load("compiled").batch_norm(x, None, None, training=True)
    assert compiled.backend(x, True) == "inductor"
    torch.testing.assert_close(y, torch.nn.functional.batch_norm(x, None, None, training=True), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE"])
def test_where_torch_compile_is_switched_off_compiled_is_not_available_and_says_so(name):
    code = """if True:
        import torch, kernels
        compiled = kernels.load("compiled")
        x = torch.randn(4, 3)
        print(compiled.why_unavailable(x.device))
        y = compiled.batch_norm(x, None, None, training=True)
        print(compiled.backend(x, True))
        print(torch.allclose(y, torch.nn.functional.batch_norm(x, None, None, training=True), atol=1e-5))
    """
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {name: "1"}, capture_output=True, text=True, check=True)
    reason, backend, right = done.stdout.splitlines()
    assert reason == f"torch.compile is switched off: {name}=1"
    assert backend.startswith("eager")
    assert right == "True"


def test_a_block_that_ran_in_python_is_not_called_inductor():
    x = torch.randn(4, 3)
    with torch.compiler.set_stance("force_eager"):
        kernels.load("compiled").batch_norm(x, None, None, training=True)
    try:
        assert compiled.backend(x, True).startswith("eager")
    finally:
        compiled._Seen.ran_python = False
    with mock.patch.object(torch._dynamo.config, "disable", True):
        assert "_dynamo.config.disable" in compiled.why_unavailable(x.device)
        assert compiled.backend(x, True).startswith("eager")


def test_tritons_backend_says_where_fusion_is_forbidden(monkeypatch):
    knobs = pytest.importorskip("triton").knobs
    triton_fused = pytest.importorskip("kernels.triton_fused")
    monkeypatch.setattr(triton_fused, "interpreted", lambda: False)
    assert triton_fused.backend(torch.empty(0), True) == "triton, FP fusion"
    if not hasattr(knobs.language, "fp_fusion_enabled"):
        pytest.skip("this Triton has no setting that forbids it")
    monkeypatch.setenv("TRITON_FORCE_DISABLE_FP_FUSION", "1")
    assert triton_fused.backend(torch.empty(0), True) == "triton, no FP fusion"

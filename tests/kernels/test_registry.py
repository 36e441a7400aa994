"""Find implementations by name and in anyone's file, and say in one line what is wrong with a file."""

import copy
import pickle
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import kernels
from kernels import BatchNorm, BrokenImplementationError, Implementation, UnknownImplementationError
from kernels.registry import files_of, label
from tests.copies import through_pickle
from tests.processes import run, start

ROOT = Path(kernels.__file__).parents[1]
SIGNATURE = "input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5"
OF_A_USER = f"""
import torch.nn.functional as F

def batch_norm({SIGNATURE}):
    "Mine, of course."
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)

def other({SIGNATURE}):
    return input * 0
"""
X = torch.arange(12.0).view(4, 3)


@pytest.fixture
def write(tmp_path):
    """Write a file of a user, and give its path."""

    def write(text, name="my_bn.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(textwrap.dedent(text))
        return path

    return write


def assert_broken(spec, *parts):
    """It is refused in one line that says these parts, and names no folder of this machine."""
    with pytest.raises(BrokenImplementationError) as caught:
        kernels.load(str(spec))
    message = str(caught.value)
    assert message.strip()
    assert "\n" not in message
    assert str(Path(str(spec)).parent) not in message
    assert str(ROOT) not in message
    for part in parts:
        assert part in message, message


def test_the_tables_begin_with_the_lesson():
    assert kernels.names()[:3] == ("tutorial", "naive", "builtin")


@pytest.mark.parametrize("name", kernels.names())
def test_every_name_loads_and_is_the_name_of_its_file_or_folder(name):
    implementation = kernels.load(name)
    assert isinstance(implementation, Implementation)
    assert implementation.name == implementation.spec == label(name) == name
    assert any((ROOT / "kernels" / file).is_file() for file in (f"{name}.py", f"{name}/__init__.py"))
    assert implementation.summary
    assert "\n" not in implementation.summary


def test_a_name_loads_one_and_the_same():
    assert kernels.load("naive") is kernels.load("naive")


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known():
    with pytest.raises(UnknownImplementationError) as caught:
        kernels.load("bultin")
    assert "did you mean 'builtin'?" in str(caught.value)
    for name in kernels.names():
        assert name in str(caught.value)


def test_a_name_far_from_all_gets_no_guess():
    with pytest.raises(UnknownImplementationError) as caught:
        kernels.load("zzzzzz")
    assert "did you mean" not in str(caught.value)


def test_a_function_of_a_file(write):
    path = write(OF_A_USER)
    mine, other = kernels.load(f"{path}:batch_norm"), kernels.load(f"{path}:other")
    assert (mine.name, mine.summary) == ("my_bn.py:batch_norm", "Mine, of course.")
    torch.testing.assert_close(
        mine.batch_norm(X, None, None, training=True), F.batch_norm(X, None, None, training=True)
    )
    assert other.batch_norm(X, None, None).count_nonzero() == 0
    assert not mine.fused
    assert label(f"{path}:batch_norm") == mine.name


def test_a_file_with_batch_norm_needs_no_function_named(write):
    assert kernels.load(str(write(OF_A_USER))).name == "my_bn.py"


def test_a_file_with_a_block_is_fused(write):
    path = write(OF_A_USER + f"\ndef batch_norm_block({SIGNATURE}, *, activation=None, pool=None):\n    return input\n")
    implementation = kernels.load(f"{path}:batch_norm")
    assert implementation.fused
    assert implementation.block(X, None, None, activation="relu") is X


def test_a_file_with_an_implementation_of_its_own_is_labelled_by_the_file(write):
    text = """
        import torch.nn.functional as F
        from kernels import Implementation
        IMPLEMENTATION = Implementation(name="naive", summary="a test", batch_norm=F.batch_norm, order=5)
    """
    implementation = kernels.load(str(write(text)))
    assert (implementation.name, implementation.order) == ("my_bn.py", 5)
    assert kernels.load(implementation.spec) is implementation


def test_files_of_one_name_in_different_folders_stay_apart(write, monkeypatch):
    one = write(OF_A_USER, "one/bn.py")
    two = write(OF_A_USER.replace("Mine, of course.", "Yours."), "two/bn.py")
    for path, summary in ((one, "Mine, of course."), (two, "Yours.")):
        assert kernels.load(f"{path}:batch_norm").summary == summary
        monkeypatch.chdir(path.parent)
        assert kernels.load("bn.py:batch_norm").summary == summary


@pytest.mark.parametrize("duplicate", [copy.deepcopy, through_pickle])
def test_a_layer_of_a_file_can_be_copied_and_pickled(write, duplicate):
    layer = BatchNorm(3, f"{write(OF_A_USER)}:batch_norm")
    torch.testing.assert_close(duplicate(layer)(X), layer(X))


def test_a_pickled_layer_of_a_file_is_read_by_another_process(write, tmp_path):
    layer = BatchNorm(3, f"{write(OF_A_USER)}:batch_norm")
    (tmp_path / "layer.pickle").write_bytes(pickle.dumps(layer))
    program = "import os, pickle; print(pickle.load(open(os.environ['LAYER'], 'rb')).implementation.summary)"
    assert run(program, LAYER=tmp_path / "layer.pickle") == "Mine, of course.\n"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("def batch_norm(:", ["my_bn.py", "SyntaxError"]),
        ("import nothing_of_this_name", ["ModuleNotFoundError", "nothing_of_this_name"]),
        ("from kernels import nothing_of_this_name", ["ImportError", "nothing_of_this_name"]),
        ("open('/nowhere/at/all/weights.bin')", ["FileNotFoundError", "weights.bin"]),
        ("import sys; sys.exit(3)", ["SystemExit", "3"]),
        ("raise ValueError('two\\nlines')", ["ValueError", "two"]),
        ("raise ValueError", ["my_bn.py", "ValueError"]),
        ("x = 1", ["my_bn.py", "batch_norm"]),
        ("batch_norm = 3", ["my_bn.py", "batch_norm"]),
    ],
)
def test_a_broken_file_is_refused_in_one_line(write, text, parts):
    assert_broken(write(text), *parts)


@pytest.mark.parametrize(
    "parameters",
    [
        "x",
        "x, weight, bias",
        "input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1",
        SIGNATURE + ", *, chunk",
        SIGNATURE.replace("eps", "epsilon"),
    ],
)
def test_another_signature_is_refused_with_the_right_one(write, parameters):
    assert_broken(write(f"def batch_norm({parameters}): ..."), "signature", "running_mean")


def test_a_function_that_isnt_there_is_named(write):
    assert_broken(f"{write(OF_A_USER)}:bath_norm", "bath_norm", "my_bn.py")


def test_a_file_that_isnt_there_is_named(tmp_path):
    assert_broken(tmp_path / "nowhere.py", "nowhere.py")
    assert_broken(f"{tmp_path / 'nowhere.py'}:batch_norm", "nowhere.py")


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "folder.py").mkdir()
    assert_broken(tmp_path / "folder.py", "folder.py")


def test_a_broken_file_leaves_no_module_behind(write):
    before = set(sys.modules)
    assert_broken(write("1 / 0"), "ZeroDivisionError")
    assert set(sys.modules) == before


BLOCK_ONLY = f"""
import torch, torch.nn.functional as F

def batch_norm_block({SIGNATURE}, *, activation=None, pool=None):
    "Fused, they say."
    y = F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return torch.relu(y) if activation == "relu" else y
"""


def test_a_block_is_enough(write):
    implementation = kernels.load(f"{write(BLOCK_ONLY)}:batch_norm")
    assert (implementation.fused, implementation.summary) == (True, "Fused, they say.")
    torch.testing.assert_close(
        implementation.batch_norm(X, None, None, training=True), F.batch_norm(X, None, None, training=True)
    )
    assert (implementation.block(X, None, None, training=True, activation="relu") >= 0).all()


@pytest.mark.parametrize("target", ["elsewhere/kernel.txt", "elsewhere/kernel.py", "elsewhere/no_ending"])
def test_a_link_is_as_good_as_its_file(write, tmp_path, target):
    file, link = write("import beside_the_target\n" + OF_A_USER, target), tmp_path / "link.py"
    write("", "elsewhere/beside_the_target.py")
    link.symlink_to(file)
    implementation = kernels.load(f"{link}:batch_norm")
    assert implementation.name == "link.py:batch_norm"
    assert kernels.load(implementation.spec) is implementation
    assert link in files_of(implementation)


HELPER = "def half(x):\n    return {}\n"


def test_a_file_imports_what_lies_beside_it_and_not_what_lies_beside_another(write):
    text = OF_A_USER + "\nfrom helper_beside import half\n"
    loaded = []
    for folder, value in (("one", 1), ("two", 2)):
        helper = write(HELPER.format(value), f"{folder}/helper_beside.py")
        implementation = kernels.load(str(write(text, f"{folder}/bn.py")))
        assert helper in files_of(implementation)
        loaded.append(sys.modules[implementation.batch_norm.__module__].half(X))
    assert loaded == [1, 2]


def test_no_file_takes_the_place_of_a_module_of_ours_or_of_a_library(write):
    for name in ("kernels", "colorsys"):  # imported, and not imported so far
        write("WRONG = True", f"here/{name}.py")
    sys.modules.pop("colorsys", None)
    path = write(OF_A_USER + "\nimport colorsys, kernels\n", "here/bn.py")
    module = sys.modules[kernels.load(str(path)).batch_norm.__module__]
    assert not hasattr(module.kernels, "WRONG")
    assert not hasattr(module.colorsys, "WRONG")


POOL = (
    OF_A_USER
    + """
import multiprocessing

def double(x):
    return 2 * x

def in_a_pool():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.map(double, [1, 2])
"""
)


def test_a_file_can_send_its_functions_to_processes_of_its_own(write):
    path = write(POOL, "with_a_pool_of_its_own.py")
    module = sys.modules[kernels.load(str(path)).batch_norm.__module__]
    assert module.in_a_pool() == [2, 4]


def test_the_suite_runs_for_anyones_file(write):
    """`BNBENCH_IMPL` puts a file in the place of the project's own; this one gives zeros."""
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/kernels/test_equivalence.py"]
    code, output = start(*command, BNBENCH_IMPL=f"{write(OF_A_USER)}:other").wait()
    assert code == 1, output
    assert "my_bn.py:other-cpu" in output
    assert "naive" not in output

"""kernels -> models -> bench: a room imports from those before it, never from those after."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {"kernels": {"models", "bench", "tests"}, "models": {"bench", "tests"}, "bench": {"tests"}}
LONG = 300


def files_of(room):
    return sorted((ROOT / room).rglob("*.py"))


FILES = [(room, path) for room in FORBIDDEN for path in files_of(room)]
each_file = pytest.mark.parametrize(
    ("room", "path"), FILES, ids=[path.relative_to(ROOT).as_posix() for _, path in FILES]
)


def rooms_imported(source, room):
    """The top-level packages that a module of `room` imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(room if node.level else str(node.module).split(".")[0])
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "import_module":
            found |= {a.value.split(".")[0] for a in node.args if isinstance(a, ast.Constant)}
    return found


def test_there_is_something_to_look_at():
    assert {room for room, _ in FILES} >= {"kernels"}


@each_file
def test_arrows_point_one_way(room, path):
    assert not rooms_imported(path.read_text("utf-8"), room) & FORBIDDEN[room]


@each_file
def test_a_long_file_says_why_it_is_long(room, path):
    source = path.read_text("utf-8")
    lines = len(source.splitlines())
    text = ast.get_docstring(ast.parse(source)) or ""
    assert lines <= LONG or "one file because" in text.lower(), (
        f'{room}/{path.name} has {lines} lines: split it, or begin with a docstring that says "One file because ..."'
    )


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import bench.timing", {"bench"}),
        ("from models import lenet", {"models"}),
        ("def f():\n    from bench.records import read", {"bench"}),
        ("import importlib\nimportlib.import_module('bench.stats')", {"importlib", "bench"}),
        ("from . import contract", {"kernels"}),
        ("'import bench'", set()),
    ],
)
def test_imports_are_found_wherever_they_stand(source, found):
    assert rooms_imported(source, "kernels") == found

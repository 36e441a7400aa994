"""The rooms and the arrows between them: kernels -> models -> bench, and inside `bench/` measure -> record -> view."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import ROOT

PACKAGES = ("kernels", "models", "bench")
RECORD_NAMES = {"bench.record.operations", "bench.record.parts", "bench.record.worlds"}
"""Names that measurements and pages have in common; no files are behind them."""

MAY_IMPORT: dict[str, set[str]] = {
    "kernels": {"kernels"},
    "models": {"models", "kernels"},
    "bench.stats": {"bench.stats"},
    "bench.record": {"bench.record", "bench.stats"},
    "bench.measure": {"bench.measure", "bench.stats", "models", "kernels", *RECORD_NAMES},
    "bench.session": {"bench.session", "bench.measure", "bench.record", "bench.stats", "models", "kernels"},
    "bench.view": {"bench.view", "bench.record", "bench.stats"},
    "bench.triton": {"bench.triton", "bench.measure", "bench.record", "bench.view", "bench.stats", "models", "kernels"},
}
MAY_IMPORT["bench.studies"] = set().union(*MAY_IMPORT.values()) | {"bench.studies"}
COMMANDS = {"report", "compare", "calibrate", "publish", "kernel_report", "tune_triton"}
"""What a person starts, besides the benchmarks."""

WITHOUT_TORCH = {"stats", "record", "view"}
SLOW = {"torch", "triton", "kernels", "models"}
"""What takes seconds to import, or is not what it was when the records were written."""

LONG = {".py": 300, ".cpp": 400, ".h": 400}


def module_of(path: Path, root: Path = ROOT) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports_of(source: str, module: str, is_package: bool = False) -> Iterator[tuple[str, int]]:
    """Every module that a file may import, wherever it does so, with the depth of the function that it does so in."""

    def walk(node: ast.AST, depth: int) -> Iterator[tuple[str, int]]:
        for child in ast.iter_child_nodes(node):
            inside = depth + isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            if isinstance(child, ast.Import):
                yield from ((alias.name, depth) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    package = module.split(".") if is_package else module.split(".")[:-1]
                    base = ".".join([*package[: len(package) - child.level + 1], *filter(None, [base])])
                yield from ((f"{base}.{alias.name}", depth) for alias in child.names)
            elif isinstance(child, ast.Call) and getattr(child.func, "attr", "") == "import_module":
                yield from ((a.value, depth) for a in child.args if isinstance(a, ast.Constant))
            yield from walk(child, inside)

    return walk(ast.parse(source), 0)


FILES = {module_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def existing(name: str, modules: dict[str, Path]) -> str | None:
    """The module that an imported name is, or is in."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def arrows(modules: dict[str, Path]) -> dict[str, dict[str, int]]:
    """From each module to those that it imports, with the depth at which it does so."""
    found: dict[str, dict[str, int]] = {}
    for module, path in modules.items():
        targets = imports_of(path.read_text("utf-8"), module, path.name == "__init__.py")
        known = ((existing(name, modules), depth) for name, depth in targets)
        found[module] = {name: depth for name, depth in known if name and name != module}
    return found


@functools.cache
def all_arrows() -> dict[str, dict[str, int]]:
    """Of this project; not at every collection of the tests."""
    return arrows(FILES)


def room_of(module: str) -> str:
    return max((room for room in MAY_IMPORT if f"{module}.".startswith(f"{room}.")), key=len, default="bench")


def forbidden(module: str, targets: dict[str, int]) -> set[str]:
    """What a module of a room imports and must not; the top of `bench/` may import all rooms."""
    room = room_of(module)
    if room == "bench":
        return set()
    allowed = MAY_IMPORT[room]
    shared = {"bench.conftest"} if room == "bench.studies" else set()  # its fixtures
    return {t for t in targets if t not in {"bench", *shared} | allowed and room_of(t) not in allowed}


def cycles(graph: dict[str, dict[str, int]]) -> list[list[str]]:
    """Groups of modules that import each other, by whatever way (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(v: str) -> None:
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in graph[v]:
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            group = stack[stack.index(v) :]
            del stack[stack.index(v) :]
            if len(group) > 1:
                found.append(sorted(group))

    for v in graph:
        if v not in index:
            visit(v)
    return found


def without_packages(graph: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    """A package's own file gathers names of its modules, which import the package: no cycle that anyone meets."""
    return {v: {w: depth for w, depth in targets.items() if not v.startswith(f"{w}.")} for v, targets in graph.items()}


@pytest.mark.parametrize("module", FILES)
def test_arrows_point_one_way(module):
    assert not forbidden(module, all_arrows()[module])


def test_nothing_imports_in_a_circle_not_even_inside_of_a_function():
    assert not cycles(without_packages(all_arrows()))


def test_at_the_top_of_bench_is_only_what_a_person_starts():
    stems = {path.stem for path in (ROOT / "bench").glob("*.py")} - {"__init__", "conftest"}
    assert {stem for stem in stems if not stem.startswith("test_")} == COMMANDS


@pytest.mark.parametrize("module", [m for m in FILES if m.split(".")[1:2] and m.split(".")[1] in WITHOUT_TORCH])
def test_pages_are_made_without_torch(module):
    assert not slow_imports(module)


def slow_imports(module: str) -> set[str]:
    return {name.split(".")[0] for name, _ in imports_of(FILES[module].read_text("utf-8"), module)} & SLOW


def reached(*starts: str) -> set[str]:
    """All modules that these import, by whatever way."""
    found, waiting = set(), list(starts)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += all_arrows()[module]
    return found


def test_reports_and_comparisons_never_import_torch():
    studies = [m for m in FILES if m.startswith("bench.studies.") and m.count(".") == 2 and ".test_" not in m]
    modules = reached("bench.report", "bench.compare", *studies)  # the registry finds the studies by their files
    assert {"bench.studies.faster", "bench.studies.lesson.tables", "bench.view.plots"} <= modules
    assert {module: names for module in modules if (names := slow_imports(module))} == {}


SOURCES = [
    path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*"))
    if path.suffix in LONG and "__pycache__" not in path.parts
]


def why_too_long(path: Path) -> str | None:
    source = path.read_text("utf-8")
    lines, most = len(source.splitlines()), LONG[path.suffix]
    top = (ast.get_docstring(ast.parse(source)) or "") if path.suffix == ".py" else source[:2000]
    if lines <= most or "one file because" in " ".join(top.lower().split()):
        return None
    return f'{path.name} has {lines} lines: split it, or begin with a text that says "One file because ..."'


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_long_file_says_why_it_is_long(path):
    assert why_too_long(path) is None


# The test itself: planted violations


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kernels.naive", "import bench.measure.timing"),
        ("kernels.naive", "def f():\n    from models.lenet import lenet"),
        ("models.lenet", "from bench import report"),
        ("bench.stats.ratios", "from bench.record import records"),
        ("bench.record.records", "from bench.view.tables import markdown"),
        ("bench.measure.timing", "from bench.record.records import Journal"),
        ("bench.measure.timing", "from bench.session import gate"),
        ("bench.session.gate", "from bench.studies.registry import studies"),
        ("bench.view.tables", "from bench.measure.environment import state"),
        ("bench.view.tables", "import importlib\nimportlib.import_module('bench.session.run')"),
    ],
)
def test_a_planted_arrow_is_found(module, source):
    names = {existing(name, FILES): depth for name, depth in imports_of(source, module)}
    assert forbidden(module, {name: depth for name, depth in names.items() if name})


def test_a_planted_cycle_is_found(tmp_path):
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("def f():\n    import c\n")
    (tmp_path / "c.py").write_text("from a import x\n")
    (tmp_path / "d.py").write_text("import a\n")
    modules = {path.stem: path for path in tmp_path.glob("*.py")}
    assert cycles(without_packages(arrows(modules))) == [["a", "b", "c"]]


@pytest.mark.parametrize(
    ("name", "text", "long"),
    [
        ("a.py", "x = 1\n" * 301, True),
        ("a.py", "x = 1\n" * 300, False),
        ("a.py", '"""One file because\nit is one idea."""\n' + "x = 1\n" * 301, False),
        ("a.cpp", "int x;\n" * 401, True),
        ("a.h", "// One file because ...\n" + "int x;\n" * 401, False),
    ],
)
def test_a_planted_long_file_is_found(tmp_path, name, text, long):
    (tmp_path / name).write_text(text)
    assert bool(why_too_long(tmp_path / name)) is long

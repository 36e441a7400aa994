"""Long files begin first, in one process or in several."""

from pathlib import Path
from types import SimpleNamespace

from tests.conftest import LONG, pytest_collection_modifyitems


def test_long_files_are_there_and_begin_first():
    there = {path.name for path in Path(__file__).parent.rglob("test_*.py")}
    assert set(LONG) <= there
    short = [SimpleNamespace(path=Path(name)) for name in ("test_order.py", "test_architecture.py")]
    long = [SimpleNamespace(path=Path("anywhere") / name) for name in LONG]
    items = [short[0], *reversed(long), short[1]]
    pytest_collection_modifyitems(items)
    assert items == [*long, *short]

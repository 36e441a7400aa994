"""A change of the project's own code during a run is seen, a touch is none."""

import pytest

from bench.session.sources import Sources


@pytest.fixture
def root(tmp_path):
    for name in ("kernels/naive.py", "bench/measure/timing.py", "models/lenet.py", "bench/record/record.schema.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as it was")
    return tmp_path


def change(root):
    (root / "bench/measure/timing.py").write_text("as it wos")


def add(root):
    (root / "kernels/mine.py").write_text("")


def remove(root):
    (root / "models/lenet.py").unlink()


@pytest.mark.parametrize(
    ("does", "path"), [(change, "bench/measure/timing.py"), (add, "kernels/mine.py"), (remove, "models/lenet.py")]
)
def test_a_change_is_seen_and_stays_seen(root, does, path):
    sources = Sources(root)
    assert sources.changed() is None
    does(root)
    assert sources.changed() == sources.changed() == path


def test_the_same_content_and_other_files_are_no_change(root):
    sources = Sources(root)
    (root / "kernels/naive.py").write_text("as it was")
    (root / "kernels/__pycache__").mkdir()
    (root / "kernels/__pycache__/naive.pyc").write_text("")
    (root / "results").mkdir()
    (root / "results/mine.py").write_text("")
    assert sources.changed() is None

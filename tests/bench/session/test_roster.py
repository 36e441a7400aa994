"""Who trains, and whose steps are timed."""

import pytest
import torch

from bench.record.labels import AA, BASELINE, PLAIN
from bench.session.candidate import contestants, shared_sources
from bench.session.roster import candidates

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("specs", "labels"),
    [
        (["naive"], ["naive", BASELINE, AA]),
        (["naive", PLAIN], ["naive", BASELINE, AA, PLAIN]),
        ([BASELINE], [BASELINE, AA]),
    ],
)
def test_who_takes_part(specs, labels):
    assert [c.label for c in contestants(candidates(specs, CPU), specs)] == labels


def test_plain_lenet_takes_part_unless_others_are_named():
    assert [c.label for c in contestants(candidates(["naive"], CPU), [])] == ["naive", BASELINE, AA, PLAIN]


def test_a_records_source_covers_kernels_in_folders(tmp_path):
    files = ["kernels/mine/__init__.py", "kernels/mine/cpp/sums.h", "kernels/mine/tuned.json", "models/lenet.py"]
    for name in [*files, "kernels/mine/__pycache__/a.pyc", "bench/report.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert [path.relative_to(tmp_path).as_posix() for path in shared_sources(tmp_path)] == sorted(files)

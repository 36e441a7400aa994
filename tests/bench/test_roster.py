"""Who trains, and whose steps are timed."""

import pytest
import torch

from bench.roster import AA, BASELINE, PLAIN, candidates, contestants

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

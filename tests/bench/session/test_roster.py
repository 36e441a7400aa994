"""Who trains, and whose steps are timed."""

import pytest
import torch

from bench.record.labels import AA, BASELINE, PLAIN
from bench.session.candidate import contestants
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

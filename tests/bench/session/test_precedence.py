"""The most telling first, whoever shuffles: a run that is cut short should be worth reading."""

import random
import re

import pytest

from bench.record.operations import GPU_SHAPES, LENET_SHAPES, PASSES, Operation
from bench.session.precedence import precedence
from tests.processes import start

IN_ORDER = [
    ("test_latency", {"operation": Operation(LENET_SHAPES[0], "block")}),
    ("test_latency", {"operation": Operation(GPU_SHAPES[0], "norm")}),
    ("test_step", {}),
    ("test_latency", {"operation": Operation(LENET_SHAPES[0], "norm")}),
    ("test_training", {}),
    ("test_inference", {}),
    ("test_profile", {}),
]


def test_blocks_of_lenet_then_shapes_of_gpus_then_steps_come_first():
    shuffled = random.Random(1).sample(IN_ORDER, len(IN_ORDER))
    assert sorted(shuffled, key=lambda test: precedence(*test)) == IN_ORDER


def test_what_is_not_named_comes_last():
    assert precedence("test_studies", {}) > max(precedence(*test) for test in IN_ORDER)


SHUFFLER = """
import random, pytest

@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    random.shuffle(items)
"""


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_plug_in_that_shuffles_changes_nothing(tmp_path, shuffled):
    (tmp_path / "shuffler.py").write_text(SHUFFLER)
    command = ["-m", "pytest", "bench", "--benchmark-only", "--collect-only", "-q", "--impl", "naive"]
    command += ["-p", "shuffler"] if shuffled else []
    code, output = start(*command, PYTHONPATH=tmp_path, PATH="", TRITON_INTERPRET="0", HOME=tmp_path).wait()
    assert code == 0, output
    tests = re.findall(r"(test_\w+)\.py::\w+\[(.*)\]", output)
    blocks = len(LENET_SHAPES) * len(PASSES) * 3  # of naive, builtin and A/A
    assert all("-block-" in test for _, test in tests[:blocks])
    others = list(dict.fromkeys(file for file, _ in tests[blocks:]))
    assert others == [
        "test_step",
        "test_latency",
        "test_training",
        "test_inference",
        "test_profile",
        "test_distributed",
    ]
    assert [test for _, test in tests[: len(PASSES)]] == [f"256x6x24x24-block-{way}-A/A" for way in PASSES]

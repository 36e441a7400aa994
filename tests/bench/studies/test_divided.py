"""The study of split batches: a step in one process is that of two, and the answer is what the seeds show."""

import pytest
import torch

from bench.measure.verification import state_of, why_no_step, why_not_divided
from bench.studies import divided
from bench.studies.divided import EACH, LOCAL, SYNCHRONIZED
from bench.studies.measure.divided import Divided, measure
from bench.studies.study import RECALIBRATED, TEST_ACCURACY
from kernels.builtin import IMPLEMENTATION as BUILTIN
from models.fashion_mnist import EMBEDDED, load
from models.lenet import lenet
from models.step import Totals, take_step
from tests.bench.samples import candidate
from tests.bench.studies.samples import add, epochs

STUDY = divided.STUDY


def add_trainings(session, lost=0.1, slower=0.1, sizes=(4, 64)):
    """Local statistics lose at 4 images, and nothing at more; recalibration heals it. Train losses are always worse."""
    for seed in range(3):
        uneven = 0.001 * seed
        for each in sizes:
            less = lost if each == 4 else 0.0
            point = {"implementation": "cpu_fused", "seed": seed, "epochs": 2, "limit": 12_000, "each": each}
            joint = epochs([1.0, 0.5], [0.5, 0.8 + uneven])
            add(session, "divided", {**point, "statistics": SYNCHRONIZED}, {"epochs": joint})
            off = (-uneven if less else (-1) ** seed * uneven / 2) - less
            split = epochs([1.1, 0.5 + slower], [0.4, 0.8 + uneven + off], gained=less)
            add(session, "divided", {**point, "statistics": LOCAL}, {"epochs": split})
    return session


def test_it_hurts_where_the_seeds_show_it(session):
    good = STUDY.newest(add_trainings(session).records)
    text = divided.answer(good)
    assert "**Splitting slows training where a process has 4 and 64 images.**" in text
    assert "the train loss of epoch 2 is 0.600 with local statistics and 0.500 with synchronized ones (-0.100" in text
    assert "**It costs test accuracy where a process has 4 images, and synchronizing heals it.**" in text
    assert "With 4 images each it is 0.700 with local statistics and 0.801 with synchronized ones (0.101 [" in text
    assert "over the training set, 0.800 with local statistics" in text
    assert divided.gained(good, 4).value == pytest.approx(0.101)
    assert "end ahead" not in text


def test_many_sizes_are_named_by_their_limit(session):
    text = divided.answer(STUDY.newest(add_trainings(session, sizes=(4, 16, 64)).records))
    assert "**Splitting slows training where a process has up to 64 images.**" in text


def test_what_the_seeds_do_not_show_is_not_said(session):
    text = divided.answer(STUDY.newest(add_trainings(session, lost=0.0, slower=0.0).records))
    assert "**Splitting is not shown to slow training.**" in text
    assert "**It is not shown to cost test accuracy.**" in text


def test_local_statistics_may_be_ahead(session):
    text = divided.answer(STUDY.newest(add_trainings(session, lost=-0.05).records))
    assert "**It is not shown to cost test accuracy.**" in text
    assert "**Local statistics end ahead where a process has 4 images.**" in text


def test_a_row_and_a_point_of_each_line_for_every_size(session):
    good = STUDY.newest(add_trainings(session).records)
    assert [line.split("|")[1].strip() for line in divided.table(good).splitlines()[2:]] == ["4", "64"]
    drawn = divided.chart(good)
    assert len(drawn.series) == 4
    assert {len(line) for line in drawn.series.values()} == {2}


def test_one_kind_of_statistics_answers_nothing(session):
    point = {"implementation": "cpu_fused", "seed": 0, "epochs": 1, "limit": 512, "each": 4, "statistics": LOCAL}
    add(session, "divided", point, {"epochs": epochs([1.0], [0.5])})
    assert divided.answer(STUDY.newest(session.records)) == "Only one kind of statistics has been trained with yet."


def test_points_are_both_statistics_at_every_size_and_seed():
    points = divided.points("naive", False)
    assert len(points) == 2 * 3 * len(EACH)
    assert len({tuple(point.items()) for point in points}) == len(points)


# What is measured


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("shards", [1, 2, 3])
def test_a_step_in_one_process_is_that_of_many(shards):
    data, network = load(EMBEDDED, limit=256), lenet(BUILTIN, seed=0)
    before, batch = state_of(network), torch.arange(200)
    model = Divided(network, shards)
    assert [id(p) for p in model.parameters()] == [id(p) for p in network.parameters()]
    take_step(model, list(model.parameters()), data, batch, 1.0, Totals(torch.device("cpu")))
    after = state_of(network)
    assert why_no_step(before, after, [batch], data, BUILTIN, 1.0, shards=shards) is None
    if shards > 1:
        assert why_not_divided(after, before, [batch], data, 1.0, shards, whole=False) is None
        assert why_not_divided(after, before, [batch], data, 1.0, shards, whole=True)


@pytest.mark.usefixtures("one_thread")
def test_running_statistics_are_those_of_the_first_part():
    network, alone = lenet(BUILTIN, seed=0), lenet(BUILTIN, seed=0)
    images = torch.rand(8, 1, 28, 28)
    Divided(network, 2)(images)
    alone(images[:4])
    own, expected = (dict(model.named_buffers()) for model in (network, alone))
    assert all(torch.equal(own[name], expected[name]) for name in own if "running" in name)
    network.eval()
    assert torch.equal(Divided(network, 2).eval()(images), network(images))


@pytest.mark.usefixtures("one_thread")
def test_a_point_trains_with_a_rate_that_goes_with_the_batch():
    said = []
    for statistics in (LOCAL, SYNCHRONIZED):
        point = {"seed": 0, "epochs": 1, "limit": 64, "each": 16, "statistics": statistics}
        (epoch,) = measure(point, candidate("naive").loaded, load(EMBEDDED, limit=192), said.append)["epochs"]
        assert (epoch["examples"], epoch["steps"]) == (64, 2)
        assert {TEST_ACCURACY, RECALIBRATED} <= epoch.keys()
    assert [line.partition(":")[0] for line in said] == ["naive, seed 0, lr 0.125, batch 32, 1 epochs"] * 2

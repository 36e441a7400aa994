"""The study of ResNet-20 asks LeNet's three questions of it, on a part of the images, and says so."""

import pytest
import torch

from bench import report
from bench.record.labels import PLAIN
from bench.studies import learning_rates, resnet20
from bench.studies.measure import resnet20 as measured
from bench.studies.measure.estimates import norms, recalibrated_copy
from bench.studies.study import RECALIBRATED, TEST_ACCURACY
from bench.studies.test_studies import asked_in
from models.fashion_mnist import EMBEDDED, load
from models.recipes import RECIPES
from tests.bench.samples import candidate
from tests.bench.studies.test_studies import add, epochs

STUDY = resnet20.STUDY


def add_trainings(session, gain=0.1, plain_losses=(2.2, 2.1)):
    """Batch norm works at 0.1 and 0.3, best at 0.3; without it training works at 0.03 only."""
    for seed in range(3):
        uneven = 0.01 * seed
        for rate, loss, accuracy in ((0.03, 1.5, 0.4), (0.1, 0.8, 0.70), (0.3, 0.6, 0.72), (1.0, 2.0, 0.3)):
            point = {"seed": seed, "epochs": 2, "limit": 4096, "batch_size": 64, "lr": rate}
            good = epochs([2.0, loss + uneven], [0.2, accuracy + uneven], gained=gain + uneven / 10)
            add(session, "resnet20", {"implementation": "cpu_fused", **point}, {"epochs": good})
            loss, accuracy = (plain_losses[1], 0.3) if rate == 0.03 else (float("nan"), 0.1)
            slow = epochs([plain_losses[0], loss + uneven], [0.1, accuracy])
            add(session, "resnet20", {"implementation": PLAIN, **point}, {"epochs": slow})
    return session


@pytest.fixture
def trained(session):
    return add_trainings(session)


def test_the_answer_takes_the_three_findings_one_by_one(trained):
    good = STUDY.newest(trained.records)
    assert STUDY.short(trained.records) == (
        "With batch norm, ResNet-20 trains faster. It allows larger learning rates. Recalibrated statistics are better"
        " than running ones"
    )
    text = resnet20.answer(good)
    assert (
        "After 2 epochs, each at its best learning rate, the train loss is 0.610 with batch norm (at 0.3) and 2.110"
        " without (at 0.03; -1.500 [-1.523, -1.477])."
    ) in text
    assert "With batch norm, training works at learning rates 0.1 and 0.3 (best: 0.730 at 0.3)" in text
    assert "Without it, training works at 0.03 only (best: 0.300 at 0.03); 9 of 12 trainings learned nothing." in text
    assert "they change test accuracy by 0.101 [0.099, 0.103]." in text


def test_what_the_seeds_do_not_show_is_not_said(session):
    add_trainings(session, gain=0.0, plain_losses=(2.0, 0.6))
    text = resnet20.answer(STUDY.newest(session.records))
    assert "**With batch norm, ResNet-20 is not shown to train faster.**" in text
    assert "**Recalibrated statistics are not shown to be better than running ones.**" in text


def test_statistics_are_compared_seed_by_seed_where_training_works(trained):
    gain = resnet20.gained(STUDY.newest(trained.records))
    assert gain.value == pytest.approx(0.101)
    assert gain.low < 0.101 < gain.high


def test_a_rate_at_which_training_diverges_is_not_the_best(trained):
    rates = learning_rates.by_rate(STUDY.newest(trained.records))
    assert [resnet20.best_rate(of_network) for of_network in rates.values()] == [0.3, 0.03]


@pytest.mark.usefixtures("trained", "without_plots")
def test_the_page_says_that_a_part_of_the_images_was_seen(folder):
    report.build(folder)
    text = (folder / STUDY.file).read_text(encoding="utf-8")
    assert text.startswith("# Do LeNet's findings hold for ResNet-20?")
    assert "-k resnet20`: 24 trainings on the first 4,096 training images of Test data, " in text
    assert "the first 4,096 training images" in " ".join(STUDY.note.split())
    rows = [line for line in text.splitlines() if line.startswith("| 2 ")]
    assert [cell.strip().split(" ")[0] for cell in rows[0].split("|")[2:5]] == ["0.610", "0.730", "0.831"]


def test_charts_name_the_rates(trained):
    loss, rates = STUDY.charts(STUDY.newest(trained.records))
    assert list(loss.series) == ["with batch norm, at 0.3", "without, at 0.03"]
    assert [x for x, *_ in rates.series["without"]] == [0.03, 0.1, 0.3, 1.0]
    assert "trains faster" in rates.description


def test_one_network_alone_answers_nothing(session):
    point = {"implementation": PLAIN, "seed": 0, "epochs": 1, "limit": 4096, "batch_size": 64, "lr": 0.1}
    add(session, "resnet20", point, {"epochs": epochs([1.0], [0.5])})
    assert resnet20.answer(STUDY.newest(session.records)) == learning_rates.ONLY_ONE
    assert STUDY.page(session.records)


# What is measured


def test_the_first_images_are_taken_and_the_same_share_of_the_test_images():
    data = load(EMBEDDED)
    few = measured.first(data, 600)
    assert torch.equal(few.train_images, data.train_images[:600])
    assert (len(few.train_labels), len(few.test_images), len(few.test_labels)) == (600, 100, 100)


@pytest.mark.usefixtures("one_thread")
def test_a_point_trains_resnet_at_its_settings():
    point = {"seed": 0, "epochs": 1, "limit": 96, "batch_size": 32, "lr": 0.1}
    said = []
    for name in ("naive", PLAIN):
        figures = measured.measure(point, candidate(name).loaded, load(EMBEDDED, limit=192), said.append)
        (epoch,) = figures["epochs"]
        assert (epoch["examples"], epoch["steps"]) == (96, 3)
        if name == PLAIN:
            assert epoch[RECALIBRATED] == epoch[TEST_ACCURACY]
    assert [line.partition(":")[0] for line in said] == [
        f"{name}, seed 0, lr 0.1, batch 32, 1 epochs" for name in ("naive", PLAIN)
    ]


@pytest.mark.usefixtures("one_thread")
def test_recalibrated_statistics_of_resnet_are_those_of_its_weights():
    data, model = load(EMBEDDED, limit=96), RECIPES["resnet20"].build("naive", seed=0)
    copy = recalibrated_copy(model, "naive", data, "resnet20")
    with torch.no_grad():
        entered = model.conv1(data.train_images.float() / 255)
    assert len(norms(copy)) == 19
    assert torch.allclose(copy.bn1.running_mean, entered.mean((0, 2, 3)), atol=1e-5)
    assert torch.equal(model.bn1.running_mean, torch.zeros(16))


def test_the_gate_is_asked_about_the_network_that_is_trained():
    class Gate:
        def why_wrong(self, who, network):
            return f"{who} in {network}"

    assert asked_in(STUDY.network)(Gate(), "naive") == "naive in resnet20"

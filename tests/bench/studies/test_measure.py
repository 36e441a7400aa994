"""What studies measure: trainings evaluated twice, noise of batches, statistics of other momenta, distances."""

import copy

import pytest
import torch

from bench.studies import jumps
from bench.studies.measure import alike as measured_alike
from bench.studies.measure import batch_noise as measured_noise
from bench.studies.measure import jumps as measured_jumps
from bench.studies.measure.estimates import Averages, copied, norms, recalibrated_copy
from bench.studies.measure.training import train_through
from bench.studies.study import RECALIBRATED, TEST_ACCURACY
from models.fashion_mnist import EMBEDDED, load
from models.lenet import lenet
from models.training import Settings, train
from tests.bench.samples import candidate


def test_a_training_is_evaluated_with_recalibrated_statistics_and_is_the_same_training():
    data, settings = load(EMBEDDED, limit=600), Settings(epochs=2, batch_size=100)
    _, found = train_through(candidate("naive").loaded, data, settings, lambda _: None)
    alone = list(train(lenet("naive", seed=0), data, settings))
    assert [e["train_loss"] for e in found] == [e.train_loss for e in alone]
    assert [e[TEST_ACCURACY] for e in found] == [e.test_accuracy for e in alone]
    assert [e[RECALIBRATED] for e in found] != [e[TEST_ACCURACY] for e in found]
    _, without = train_through(None, data, settings, lambda _: None)
    assert [e[RECALIBRATED] for e in without] == [e[TEST_ACCURACY] for e in without]


def test_deviations_of_batches_are_those_of_independent_draws():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(40_000, 8, generator=generator, dtype=torch.float64) * 3 + 5
    order = torch.randperm(len(values), generator=generator)
    for size in (16, 256):
        found = measured_noise.deviations(values, values.square(), order, size)
        assert found["mean"] == pytest.approx(1 / size**0.5, rel=0.1)
        assert found["variance"] == pytest.approx((2 / size) ** 0.5, rel=0.15)


def test_moments_are_those_of_what_enters_the_slots():
    data, model = load(EMBEDDED, limit=40), lenet("naive", seed=0)
    means, squares = measured_noise.moments_of_images(model, data)["1"]
    with torch.no_grad():
        entered = model[0](data.train_images.float() / 255).double()
    assert torch.allclose(means, entered.mean((2, 3)), atol=1e-6)
    assert torch.allclose(squares, entered.square().mean((2, 3)), atol=1e-5)
    assert measured_noise.moments_of_images(model, data)["10"][0].shape == (40, 120)
    assert model.training


def test_averages_are_those_of_torch_for_every_momentum():
    data = load(EMBEDDED, limit=600)
    settings = Settings(epochs=1, batch_size=100)
    taken_along = lenet("naive", seed=0)
    averages = Averages(taken_along, (0.1, 0.5, 1.0))
    list(train(taken_along, data, settings))
    for momentum, statistics in averages.statistics.items():
        model = lenet("naive", seed=0)
        for module in norms(model):
            module.momentum = momentum
        list(train(model, data, settings))
        found = copied(taken_along, "builtin", statistics)
        assert torch.equal(found[0].weight, model[0].weight)  # the same training
        for ours, theirs in zip(norms(found), norms(model), strict=True):
            assert torch.allclose(ours.running_mean, theirs.running_mean, atol=1e-6)
            assert torch.allclose(ours.running_var, theirs.running_var, rtol=1e-5)


def test_averages_at_rest_are_of_one_and_the_same_weights():
    data, model = load(EMBEDDED, limit=600), lenet("naive", seed=0)
    recalibrated = recalibrated_copy(model, "naive", data)
    averages = measured_jumps.averages_at_rest(copied(recalibrated, "naive"), data, Settings(epochs=1, batch_size=100))
    slow, last = (averages.statistics[m][0][0] for m in (0.01, jumps.LAST_BATCH))
    whole = norms(recalibrated)[0].running_mean
    assert torch.allclose(slow, whole, atol=0.01 * float(whole.abs().max()))
    assert 0 < float((last - whole).abs().max()) < 0.3 * float(whole.abs().max())


def test_statistics_of_the_whole_set_are_those_of_the_weights_of_now():
    data, model = load(EMBEDDED, limit=1000), lenet("naive", seed=0)
    double = recalibrated_copy(model, "naive", data)
    with torch.no_grad():
        entered = model[0](data.train_images.float() / 255)
    assert torch.allclose(double[1].running_mean, entered.mean((0, 2, 3)), atol=1e-5)
    assert torch.equal(model[1].running_mean, torch.zeros(6))


def test_batch_statistics_are_those_of_the_test_batch_down_to_one_image():
    data, model = load(EMBEDDED, limit=300), lenet("naive", seed=0)
    expected = copy.deepcopy(model).train()
    with torch.no_grad():
        found = expected(data.test_images.float() / 255).argmax(1)
    wanted = float((found == data.test_labels).float().mean())
    assert measured_jumps.with_batch_statistics(model, data, len(data.test_images)) == pytest.approx(wanted, abs=0.01)
    # A single image normalized by itself has nothing left after a linear layer: all get one and the same answer.
    alone = measured_jumps.with_batch_statistics(model, data, 1)
    shares = torch.bincount(data.test_labels[: jumps.FEW_IMAGES], minlength=10) / len(data.test_labels)
    assert min(abs(alone - float(share)) for share in shares) < 1e-6


def test_an_implementation_next_to_itself_is_nowhere_apart_and_another_seed_is():
    data = load(EMBEDDED, limit=600)
    for name in ("builtin", "naive"):
        point = {"implementation": name, "seed": 0, "steps": 5}
        found = measured_alike.measure(point, candidate(name).loaded, data, lambda _: None)["apart"]
        assert [row["step"] for row in found] == [1, 2, 5]
        distances = [row["weights"] for row in found]
        assert (min(distances) > 0.1) if name == "builtin" else (max(distances) < 1e-3)

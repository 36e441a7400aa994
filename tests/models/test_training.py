"""The training loop: the same batches for all, the same bits again, the arithmetic of SGD."""

import copy
import math

import pytest
import torch
from torch import nn
from torchvision.transforms.functional import to_tensor

from models import step, training
from models.fashion_mnist import EMBEDDED, load
from models.lenet import lenet
from models.training import Settings, evaluate, shuffled, train, warm_up

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data():
    return load(EMBEDDED, limit=1100)


# Others compile for seconds; the conformance suite has them.
NORMS = ["tutorial", "naive", "builtin"]


def run(norm, data, **settings):
    network = lenet(norm, seed=0)
    return network, list(train(network, data, Settings(**{"epochs": 2, "batch_size": 128, **settings})))


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": -1},
        {"batch_size": 1},
        {"lr": 0.0},
        {"lr": math.nan},
        {"lr": math.inf},
        {"seed": -1},
    ],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must be"):
        Settings(**wrong)


def test_last_batch_of_one_image_is_refused_before_training(data):
    network = lenet("builtin", seed=0)
    with pytest.raises(ValueError, match="1100 images in batches of 157 leave a last batch of one image"):
        train(network, data, Settings(batch_size=157))


# Batches


def test_order_is_a_permutation_that_changes_with_seed_and_epoch():
    orders = [shuffled(500, seed, epoch) for seed, epoch in [(0, 1), (0, 2), (1, 1), (1, 2)]]
    for order in orders:
        assert torch.equal(order.sort().values, torch.arange(500))
    assert len({tuple(order.tolist()) for order in orders}) == 4
    assert torch.equal(shuffled(500, 1, 2), orders[3])


def test_order_leaves_the_callers_random_state_alone(data):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    run("builtin", data, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_images_are_normalized_as_totensor_does(data):
    expected = torch.stack([to_tensor(image.squeeze(0).numpy()) for image in data.train_images[:50]])
    assert torch.equal(step.normalized(data.train_images[:50], torch.float32), expected)


def test_every_implementation_sees_the_same_batches_and_the_short_last_one(data):
    seen = {}
    for norm in [*NORMS, None]:
        network = lenet(norm, seed=0)
        batches = seen.setdefault(norm, [])
        network.register_forward_pre_hook(
            lambda module, args, batches=batches: batches.append(args[0].clone()) if module.training else None
        )
        list(train(network, data, Settings(epochs=2, batch_size=256)))
    assert [len(batch) for batch in seen["builtin"]] == [256, 256, 256, 256, 76] * 2
    for batches in seen.values():
        assert all(torch.equal(a, b) for a, b in zip(batches, seen["builtin"], strict=True))


# The arithmetic


def test_an_epoch_is_the_textbook_loop_with_torchs_sgd(data):
    expected = lenet("builtin", seed=0)
    optimizer = torch.optim.SGD(expected.parameters(), lr=0.5)
    total_loss = correct = 0.0
    for batch in shuffled(1100, 7, 1).split(128):
        images = data.train_images[batch].float() / 255
        output = expected(images)
        loss = nn.functional.cross_entropy(output, data.train_labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total_loss += loss.item() * len(batch)
        correct += (output.argmax(1) == data.train_labels[batch]).sum().item()

    network, [epoch] = run("builtin", data, epochs=1, lr=0.5, seed=7)
    for name, value in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name
    assert epoch.train_loss == pytest.approx(total_loss / 1100, rel=1e-5)
    assert epoch.train_accuracy == correct / 1100
    assert (epoch.number, epoch.examples, epoch.steps) == (1, 1100, 9)
    with torch.no_grad():
        output = expected.eval()(data.test_images.float() / 255)
    assert epoch.test_accuracy == (output.argmax(1) == data.test_labels).sum().item() / len(output)


@pytest.mark.parametrize(("norm", "threads"), [("tutorial", 1), ("naive", 1), ("builtin", 1), ("builtin", 2)])
def test_repetition_gives_the_same_bits(data, norm, threads):
    torch.set_num_threads(threads)
    first, epochs = run(norm, data)
    second, again = run(norm, data)
    outcome = [(e.train_loss, e.train_accuracy, e.test_accuracy) for e in epochs]
    assert outcome == [(e.train_loss, e.train_accuracy, e.test_accuracy) for e in again]
    for name, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], value), name
    _, other = run(norm, data, seed=1)
    assert other[0].train_loss != epochs[0].train_loss


def test_taking_turns_changes_nothing(data):
    networks = [lenet("builtin", seed=0), lenet("naive", seed=0)]
    settings = Settings(epochs=2, batch_size=128)
    turns = list(zip(*(train(network, data, settings) for network in networks), strict=True))
    for norm, network, epochs in zip(["builtin", "naive"], networks, zip(*turns, strict=True), strict=True):
        alone, expected = run(norm, data)
        assert [e.train_loss for e in epochs] == [e.train_loss for e in expected]
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), alone.parameters(), strict=True))


def test_going_on_after_an_interruption_gives_the_same_bits(data):
    network = lenet("builtin", seed=0)
    settings = Settings(epochs=2, batch_size=128)
    first = next(train(network, data, settings))
    [second] = train(network, data, settings, first_epoch=first.number + 1)
    whole, expected = run("builtin", data)
    assert [first.train_loss, second.train_loss] == [epoch.train_loss for epoch in expected]
    assert [first.number, second.number] == [1, 2]
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), whole.parameters(), strict=True))


def test_implementations_learn_alike(data):
    # A short training is a test too; at a rate that lets differences of rounding stay small.
    outcomes = {norm: run(norm, data, epochs=3, lr=0.1)[1] for norm in NORMS}
    losses = [epoch.train_loss for epoch in outcomes["builtin"]]
    assert losses[2] < 0.75 * losses[0]
    for epochs in outcomes.values():
        assert [epoch.train_loss for epoch in epochs] == pytest.approx(losses, rel=1e-3)
    plain = [epoch.train_loss for epoch in run(None, data, epochs=3, lr=0.1)[1]]
    assert plain[2] > 1.5 * losses[2]  # so the comparison would notice a slot that does nothing


def test_divergence_is_a_result(data):
    network = lenet("builtin", seed=0)
    with torch.no_grad():
        network[0].weight.fill_(math.nan)
    [epoch] = train(network, data, Settings(epochs=1))
    assert math.isnan(epoch.train_loss)
    assert 0 <= epoch.test_accuracy <= 1


def test_other_dtypes_train(data):
    for dtype in (torch.float64, torch.bfloat16):
        network = lenet("builtin", seed=0, dtype=dtype)
        first, second = train(network, data, Settings(epochs=2, batch_size=128, lr=0.1))
        assert second.train_loss < first.train_loss


# Listening, evaluation, warm-up


@pytest.mark.parametrize(
    ("batch_size", "expected"), [(44, [5, 10, 15, 20, 25]), (100, [2, 4, 6, 8, 10, 11]), (600, [1, 2])]
)
def test_listener_hears_the_lessons_points(data, batch_size, expected):
    steps = []
    network = lenet("builtin", seed=0)
    [epoch] = train(network, data, Settings(epochs=1, batch_size=batch_size), on_step=steps.append)
    assert [step.step for step in steps] == expected
    assert (steps[-1].train_loss, steps[-1].train_accuracy) == (epoch.train_loss, epoch.train_accuracy)
    _, [silent] = run("builtin", data, epochs=1, batch_size=batch_size)
    assert silent.train_loss == epoch.train_loss


def test_times_leave_the_listener_out_of_the_steps(data):
    def listen(_):
        training.time.sleep(0.2)

    network = lenet("builtin", seed=0)
    [epoch] = train(network, data, Settings(epochs=1, batch_size=600), on_step=listen)
    assert epoch.step_seconds > 0
    assert epoch.wall_seconds > epoch.step_seconds + 0.4


@pytest.mark.parametrize("mode", [True, False])
def test_evaluation_uses_running_statistics_and_restores_the_mode(data, mode):
    network = lenet("tutorial", seed=0)
    list(train(network, data, Settings(epochs=2, batch_size=128)))
    before = copy.deepcopy(network.state_dict())
    network.train(mode)
    accuracy = evaluate(network, data)
    assert network.training is mode
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.inference_mode():
        one_by_one = torch.cat([network.eval()(image[None].float() / 255) for image in data.test_images])
    assert accuracy == pytest.approx((one_by_one.argmax(1) == data.test_labels).float().mean().item())


def test_warm_up_meets_every_shape_and_changes_nothing(data):
    network = lenet("builtin", seed=0)
    before = copy.deepcopy(network.state_dict())
    shapes = set()
    handle = network.register_forward_pre_hook(lambda module, args: shapes.add((module.training, len(args[0]))))
    assert warm_up(network, data, Settings(batch_size=256)) > 0
    assert shapes == {(True, 256), (True, 76), (False, len(data.test_images))}
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    met = set(shapes)
    list(train(network, data, Settings(epochs=1, batch_size=256)))
    handle.remove()
    assert shapes == met

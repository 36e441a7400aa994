"""A world that is measured: its rows, what they send each other, and that a step that is wrong is found."""

import dataclasses
from statistics import median

import pytest
import torch
import torch.distributed as dist

import kernels
from bench.measure import distributed, divided_steps, worlds
from bench.measure.distributed import Effort, rows
from bench.measure.divided_steps import Row
from bench.measure.figures import PlainError, WrongError
from bench.measure.timing import threads
from bench.measure.verification import state_of, why_no_step
from bench.record.labels import BASELINE
from bench.record.worlds import ALONE, ALONE_ALL, IN_ONE, LOCAL, OF_ONE, STRONG, SUMS, SYNCHRONIZED, TORCHS, WEAK
from kernels.builtin import IMPLEMENTATION as BUILTIN
from models.alternatives.missing import MissingError
from models.fashion_mnist import EMBEDDED, load
from models.lenet import lenet
from models.step import cross_entropy, descend, gather
from tests.bench.samples import context
from tests.processes import START

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch was built without gloo"
)
CPU = torch.device("cpu")
OURS = next(name for name in ("cpu_fused", "naive") if kernels.load(name).why_unavailable(CPU) is None)
SHORT = Effort(0.0, 2, 2, (12, 13))


@pytest.fixture(scope="module")
def data():
    return load(EMBEDDED, limit=1100)


@pytest.fixture(scope="module")
def world(data):
    """`builtin` and one of ours in two processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worlds, "START", START)
        return distributed.measure(kernels.load(BASELINE), context(data), [kernels.load(OURS)], 2, SHORT)


def of(world, implementation, way, scaling=STRONG):
    (row,) = (
        row
        for row in world["rows"]
        if (row["implementation"], row["way"], row["scaling"], row["again"]) == (implementation, way, scaling, False)
    )
    return row


def test_every_row_has_a_sample_in_each_round(world):
    assert world["rounds"] == 2
    assert {len(row["samples_ns"]) for row in world["rows"]} == {2}
    assert min(min(row["samples_ns"]) for row in world["rows"]) > 0
    ways = {(row["implementation"], row["way"], row["scaling"]) for row in world["rows"]}
    assert ways == {
        *((name, way, STRONG) for name in (BASELINE, OURS) for way in (*IN_ONE, LOCAL)),
        *((name, LOCAL, WEAK) for name in (BASELINE, OURS)),
        (OURS, SYNCHRONIZED, STRONG),
        (OURS, SYNCHRONIZED, WEAK),
        (BASELINE, SUMS, STRONG),
    }
    assert [(row["implementation"], row["way"]) for row in world["rows"] if row["again"]] == [
        (BASELINE, LOCAL),
        (OURS, SYNCHRONIZED),
    ]


def test_a_step_has_the_threads_and_cores_of_its_row_whichever_was_before(data, monkeypatch):
    """The step under the profiler, too: after a row that had all cores, its collectives took milliseconds."""
    bound = []
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(divided_steps.binding, "share", lambda rank, processes, _: {rank, processes})
    monkeypatch.setattr(divided_steps.binding, "bind", bound.append)
    images = divided_steps.first_images(data, 512)
    everything, alone = (
        divided_steps.DividedSteps(Row(BASELINE, way, STRONG), images, CPU, 1, 2) for way in (ALONE_ALL, ALONE)
    )
    with threads(torch.get_num_threads()):
        everything.prepare(1)
        assert (torch.get_num_threads(), bound[-1]) == (2, {0, 1})
        alone.step_once()
        assert (torch.get_num_threads(), bound[-1]) == (1, {0, 2})


def test_collectives_are_counted_with_their_bytes(world):
    sent = [(each["kind"], each["count"], each["bytes"]) for each in of(world, OURS, SYNCHRONIZED)["collectives"]]
    forward = [("all_gather", 2 * c + 1, 8 * (2 * c + 1)) for c in (6, 16, 120, 84)]
    backward = [("all_reduce", 2 * c, 16 * c) for c in (84, 120, 16, 6)]
    parameters = sum(p.numel() for p in lenet(BUILTIN).parameters())
    gradients = [("all_reduce", parameters, 4 * parameters)]
    assert sent == [*forward, *backward, *gradients]
    assert [each["count"] for each in of(world, OURS, LOCAL)["collectives"]] == [parameters]
    assert len(of(world, BASELINE, SUMS)["collectives"]) == 4 * 4 + 1
    assert of(world, OURS, ALONE)["collectives"] == []


def test_collectives_are_timed_by_size(world):
    points = {(point["kind"], point["count"]): point for point in world["collectives"]}
    assert points.keys() == {(kind, count) for kind in ("all_gather", "all_reduce") for count in (12, 13)}
    assert points["all_gather", 13]["bytes"] == 2 * 13 * 8
    assert points["all_reduce", 12]["bytes"] == 12 * 8
    assert all(median(point["ns"]) > 1000 for point in points.values())


def test_a_gpu_has_torchs_own_and_one_process_has_nobody():
    both = [BUILTIN, kernels.load(OURS)]
    assert TORCHS in {row.way for row in rows(both, 2, torch.device("cuda"))}
    assert ALONE_ALL not in {row.way for row in rows(both, 2, torch.device("cuda"))}
    assert {row.way for row in rows(both, 1, CPU)} == {ALONE_ALL, ALONE, OF_ONE}


def test_what_is_wrong_in_a_step_is_found(monkeypatch, data):
    monkeypatch.setattr(worlds, "START", START)
    monkeypatch.setattr(distributed, "_measured", wrongly)
    with pytest.raises(WrongError) as error:
        distributed.measure(BUILTIN, context(data), [], 2, SHORT)
    found = str(error.value).removeprefix("wrong in a step that was timed: ").split("; ")
    assert len(found) == 2
    assert found[0].startswith(f"{BASELINE}, {LOCAL}, {WEAK}: the step of 9.weight off by")
    assert found[1] == f"{OURS}, {SYNCHRONIZED}, {STRONG}: its statistics are not those of the whole batch"


def wrongly(*arguments, measured=distributed._measured):
    """A world that loses the gradient of a layer in one row, and doesn't synchronize in another."""
    build = divided_steps.lenet

    def built(name, **settings):
        network = build(name, **settings)
        if name == BASELINE:
            network.get_submodule("9").weight.register_hook(lambda gradient: 0 * gradient)
        return network

    divided_steps.lenet = built
    divided_steps.kernels.convert_synchronized = lambda network: network
    distributed.rows = lambda *_: [Row(BASELINE, LOCAL, WEAK), Row(OURS, SYNCHRONIZED, STRONG)]
    return measured(*arguments)


@pytest.mark.parametrize("shards", [1, 2])
def test_steps_are_judged_by_how_the_batch_was_divided(data, shards):
    network = lenet(BUILTIN, seed=0)
    before, batch = state_of(network), torch.arange(256)
    for own in batch.tensor_split(2):  # as two processes with local statistics do
        images, labels = gather(network, data, own)
        (cross_entropy(network(images), labels) / 2).backward()
    descend(list(network.parameters()), 1.0)
    reason = why_no_step(before, state_of(network), [batch], data, BUILTIN, 1.0, shards=shards)
    assert (reason is None) == (shards == 2)


def test_too_few_images_are_named(data):
    few = dataclasses.replace(data, train_images=data.train_images[:100])
    with pytest.raises(PlainError, match=r"^2 processes need 512 images for a batch each, and there are 100$"):
        distributed.measure(BUILTIN, context(few), [], 2, SHORT)


def test_a_device_that_has_no_world_is_unavailable(monkeypatch, data):
    monkeypatch.setattr(worlds, "why_none", lambda *_: "torch was built without NCCL")
    with pytest.raises(MissingError, match="without NCCL"):
        distributed.measure(BUILTIN, context(data), [], 2, SHORT)

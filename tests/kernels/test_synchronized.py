"""Synchronized batch norm: a batch divided over processes has the answers of the whole one."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

import kernels
from kernels import synchronized
from kernels.agreement import Exam, worst
from kernels.eager_steps import EAGER
from kernels.problems import make_problem
from kernels.steps import Moments
from tests.copies import through_pickle
from tests.kernels.divided_batches import CASES, FAULTS, FOR_FAULTS, IMPLEMENTATIONS, parts, problem_of
from tests.processes import start

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch was built without gloo"
)
WHOLE, SUMMED, SAME = ("output", "dx", "dresidual"), ("dweight", "dbias"), ("running_mean", "running_var")


def world_of(size, folder, fault=""):
    """The answers of each process, by case."""
    command = ("-m", "tests.kernels.divided_batches", folder)
    processes = [start(*map(str, (*command, rank, size, fault)), OMP_NUM_THREADS=1) for rank in range(size)]
    for process in processes:
        code, printed = process.wait()
        assert code == 0, printed
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


@pytest.fixture(scope="module", params=[1, 2, 3, 4], ids="world of {}".format)
def world(request, tmp_path_factory):
    return world_of(request.param, tmp_path_factory.mktemp("world"))


def together(answers):
    """The answers of a case as one process would give them."""
    of_all = {name: torch.cat([own[name] for own in answers]) for name in WHOLE if name in answers[0]}
    of_all |= {name: sum(own[name].double() for own in answers) for name in SUMMED}
    return of_all | {name: answers[0][name] for name in SAME}


def deviation(case, answers):
    """The worst deviation of a case from float64 that isn't allowed; None where all is right."""
    return worst(Exam(problem_of(case)).judge(IMPLEMENTATIONS[case["implementation"]], together(answers)))


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: "-".join(map(str, CASES[n].values())))
def test_a_divided_batch_has_the_answers_of_the_whole_one(world, number):
    answers = [process[number] for process in world]
    assert deviation(CASES[number], answers) is None
    for name in SAME:
        assert all(torch.equal(own[name], answers[0][name]) for own in answers), f"{name} differs between processes"


def test_plain_batches_go_the_short_way(world):
    """In one call; an empty batch, one value per channel, or a block of residual and pool step by step."""
    node = kernels.load("cpu_fused")
    if node.why_unavailable(torch.device("cpu")) or not node.ready(None):
        pytest.skip("there is no short way here")
    if len(world) == 1:
        pytest.skip("a process alone is not synchronized")
    ways = {
        process[number]["way"]
        for number, case in enumerate(CASES)
        for process in world
        if case["implementation"] == "cpu_fused" and case["division"] == "even"
    }
    assert ways == {"SynchronizedBlockBackward"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(tmp_path, fault):
    world = world_of(3, tmp_path, fault)
    assert any(deviation(case, [process[n] for process in world]) for n, case in enumerate(FOR_FAULTS))


def test_batches_are_divided_as_they_say():
    assert parts(12, 3, "even") == [4, 4, 4]
    assert parts(12, 3, "uneven") == [2, 5, 5]
    assert parts(13, 4, "one image") == [1, 4, 4, 4]
    assert parts(12, 2, "none") == [0, 12]
    assert parts(12, 1, "none") == [12]


# --- Without others --------------------------------------------------------------------------------------------------


def test_without_a_group_it_is_the_local_function_to_the_bit():
    problem = make_problem((6, 3, 4, 4))
    local, alone = (kernels.BatchNorm(3, "naive", process_group=group) for group in (None, "world"))
    for training in (True, False):
        local.train(training)
        alone.train(training)
        assert torch.equal(local(problem.input), alone(problem.input))
    assert all(map(torch.equal, local.state_dict().values(), alone.state_dict().values()))


def test_eager_steps_of_an_empty_batch():
    x = torch.empty(0, 3, 4, 4)
    own = EAGER.statistics(x)
    assert (own.size, own.mean.tolist(), own.m2.tolist()) == (0, [0.0] * 3, [0.0] * 3)


def test_moments_keep_their_digits():
    x = make_problem((64, 4), mean=1e6, std=1.0).input
    own = EAGER.statistics(x)
    torch.testing.assert_close(own.mean, x.double().mean(0), rtol=1e-15, atol=0)
    torch.testing.assert_close(own.m2, (x.double() - x.double().mean(0)).square().sum(0), rtol=1e-10, atol=0)


def test_between_the_steps_kernels_do_what_eager_operations_do(cpu):
    """Of three processes, one of them without a batch, and with every kind of running statistics."""
    ours = kernels.load("cpu_fused")
    if reason := ours.why_unavailable(cpu):
        pytest.skip(reason)
    batches = [make_problem((images, 5), mean=1e4, std=1.0, seed=images).input for images in (7, 3)]
    every = torch.stack([EAGER.statistics(x).values for x in (*batches, batches[0][:0])])
    whole = torch.cat(batches).double()
    for dtype in (torch.float32, torch.float64, torch.bfloat16, None):
        before = [torch.full((5,), value, dtype=dtype) for value in (0.5, 2.0)] if dtype else [None, None]
        running = [None if tensor is None else tensor.clone() for tensor in before]
        count, saved = ours.steps.meet(every, *running, 0.25, 1e-3)
        assert count == 10
        expected = torch.stack([whole.mean(0), (whole.var(0, correction=0) + 1e-3).rsqrt()])
        torch.testing.assert_close(saved, expected, rtol=1e-9, atol=0)
        if dtype:
            moved = [0.75 * 0.5 + 0.25 * whole.mean(0), 0.75 * 2.0 + 0.25 * whole.var(0)]
            for tensor, value in zip(running, moved, strict=True):
                torch.testing.assert_close(tensor, value.to(dtype))
                assert tensor._version == 1


def test_moments_elsewhere_are_not_for_the_kernels_of_the_cpu(monkeypatch):
    """They would read another device's addresses."""
    monkeypatch.setattr(synchronized, "gathered", lambda own, _: own.values.view(1, -1))
    ours, x = kernels.load("cpu_fused"), torch.empty(4, 3, device="meta")
    call = synchronized.Call(ours.steps, None, None, None, 0.1, 1e-5, None, None)
    with pytest.raises(RuntimeError, match=r"meta tensors|Meta tensor"):  # of eager operations, which ask for the count
        synchronized.met(EAGER.statistics(x), call)


def test_with_one_value_nothing_moves(cpu):
    ours = kernels.load("cpu_fused")
    if reason := ours.why_unavailable(cpu):
        pytest.skip(reason)
    running = torch.ones(3)
    count, _ = ours.steps.meet(EAGER.statistics(torch.ones(1, 3)).values.view(1, -1), running, None, 0.1, 1e-5)
    assert (count, running.tolist()) == (1, [1.0] * 3)


# --- The layer -------------------------------------------------------------------------------------------------------


def test_a_network_is_synchronized_in_place_and_keeps_its_state():
    network = nn.Sequential(nn.Conv2d(1, 3, 3), kernels.BatchNorm(3, "naive", activation="relu"), nn.Flatten())
    keys = list(network.state_dict())
    assert kernels.convert_synchronized(network) is network
    assert network[1].process_group == "world"
    assert "synchronized" in repr(network[1])
    assert list(network.state_dict()) == keys
    for twin in (copy.deepcopy(network), through_pickle(network)):
        assert twin[1].process_group == "world"
    network[1].synchronize(None)
    assert "synchronized" not in repr(network[1])


def test_what_cannot_be_synchronized_is_refused_before_anything_changes():
    network = nn.Sequential(kernels.BatchNorm(3, "naive"), kernels.BatchNorm(3, "builtin"))
    with pytest.raises(ValueError, match="builtin can't be synchronized"):
        kernels.convert_synchronized(network)
    assert network[0].process_group is None
    with pytest.raises(ValueError, match="can't be synchronized"):
        kernels.BatchNorm(3, "builtin", process_group="world")
    with pytest.raises(TypeError, match=r"BatchNorm2d is not a layer of ours: kernels\.convert"):
        kernels.convert_synchronized(nn.Sequential(nn.BatchNorm2d(3)))


def test_synchronized_layers_are_not_restored_to_local_ones():
    network, _ = kernels.convert(nn.Sequential(nn.BatchNorm2d(3)), "naive")
    kernels.convert_synchronized(network)
    with pytest.raises(ValueError, match="would not be synchronized"):
        kernels.unconvert(network)
    network[0].synchronize(None)
    assert type(kernels.unconvert(network)[0]) is nn.BatchNorm2d


def test_one_value_in_all_processes_is_refused(monkeypatch):
    monkeypatch.setattr(synchronized, "merged", lambda own, _: Moments.of(1, own.mean, own.m2))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training, got 1"):
        synchronized.block(torch.ones(1, 3), None, None, None, None, 0.1, 1e-5, steps=EAGER, group=None)

"""Data-parallel training: the steps of one process, what is left of a killed one, and what bad input is told."""

import os
import socket
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

import kernels
from models import checkpoint, torchrun
from models.device import DeviceUnavailableError
from models.fashion_mnist import EMBEDDED
from models.lenet import lenet
from models.training import Epoch
from models.training import __main__ as training_cli
from models.training.restart import Kept
from models.world import ALONE, World
from tests.models.launched import CASES, outcome
from tests.processes import start

with_gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch was built without gloo"
)
FEW = ["--data-dir", str(EMBEDDED), "--limit", "512", "--epochs", "1"]


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """The folders that torchrun's processes have filled."""
    folder = tmp_path_factory.mktemp("launched")
    code, printed = start("-m", "tests.models.launched", str(folder), OMP_NUM_THREADS=1).wait()
    assert code == 0, printed
    return folder


@pytest.fixture(scope="module")
def worlds(launched):
    """What each of three processes has of each case."""
    return [torch.load(launched / "solved" / f"{rank}.pt") for rank in range(3)]


def printed(folder, attempt, rank, stream):
    [path] = folder.glob(f"logs/*/attempt_{attempt}/{rank}/std{stream}.log")
    return path.read_text()


def notices(text):
    """What stands below the line of the data; old versions of rich end with an empty line."""
    return [line for line in text.splitlines()[1:] if line]


@with_gloo
def test_the_command_ends_well(tmp_path):
    """In processes that torchrun starts itself: at their end nothing may still need the interpreter."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "models.training"]
    environment = {**os.environ, "BNBENCH_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, *command, "--norm", "naive", "--sync", *FEW], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "examples/sec on cpu, 2 processes" in ended.stdout


# --- The steps -------------------------------------------------------------------------------------------------------

# Sums in another order differ by roundings, which each step at learning rate 1.0 multiplies. Weights were off by 4e-12
# and 4e-4 after at most four steps; those of local batch norm are by 2e-2.
ROUNDINGS = {torch.float64: 1e-9, torch.float32: 4e-3}


def furthest(state, expected):
    """The largest difference of two sets of weights and statistics."""
    return max((state[name].double() - value.double()).abs().max().item() for name, value in expected.items())


@with_gloo
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("case", [case for case in CASES if case != "local"])
def test_three_processes_take_the_steps_of_one(worlds, case):
    alone, tolerance = outcome(case), ROUNDINGS[CASES[case][2]]
    for world in worlds:
        assert furthest(world[case]["state"], alone["state"]) < tolerance
        assert world[case]["losses"] == pytest.approx(alone["losses"], rel=1e-5)  # sums are float32
        assert world[case]["correct"] == pytest.approx(alone["correct"], abs=tolerance)
        assert world[case]["test"] == pytest.approx(alone["test"], abs=2 * tolerance)
        assert world[case]["test"] == world[case]["test alone"]


@with_gloo
@pytest.mark.usefixtures("one_thread")
def test_local_batch_norm_takes_other_steps(worlds):
    alone = outcome("local")
    assert furthest(worlds[0]["local"]["state"], alone["state"]) > 0.01
    assert worlds[0]["local"]["losses"][0] != pytest.approx(alone["losses"][0], rel=1e-4)


@with_gloo
@pytest.mark.parametrize("case", CASES)
def test_all_processes_have_the_same_network_and_figures(worlds, case):
    first, *others = (world[case] for world in worlds)
    for other in others:
        assert furthest(other["state"], first["state"]) == 0
        assert all(other[name] == first[name] for name in ("losses", "correct", "test", "test alone"))


def test_small_shards_are_refused_where_batch_norm_is_local():
    network = lenet("naive", seed=0)
    World(0, 2).check_shards(network, 4)
    with pytest.raises(ValueError, match="a batch of 5 images leaves one of 3 processes 1, and local batch norm"):
        World(0, 3).check_shards(network, 5)
    World(0, 3).check_shards(kernels.convert_synchronized(network), 5)
    World(0, 3).check_shards(lenet(None), 2)


def test_shards_are_contiguous_and_may_be_empty():
    shards = [World(rank, 3).shard(torch.arange(5)).tolist() for rank in range(3)]
    assert shards == [[0, 1], [2, 3], [4]]
    assert [len(World(rank, 3).shard(torch.arange(2))) for rank in range(3)] == [1, 1, 0]


# --- Restarts --------------------------------------------------------------------------------------------------------


@with_gloo
def test_a_killed_process_costs_the_epoch_under_way_and_nothing_else(launched):
    whole, killed = launched / "undisturbed", launched / "killed"
    before, after, expected = (printed(*place, 0, "out") for place in ((killed, 0), (killed, 1), (whole, 0)))
    assert before == expected[: len(before)]
    assert before.endswith("\n")
    assert "epoch 2, step 2" in before.splitlines()[-1]
    epochs = [line for line in expected.splitlines() if line.startswith(("epoch 2", "epoch 3", "loss"))]
    assert [line for line in after.splitlines() if line.startswith(("epoch", "loss"))] == epochs
    assert "examples/sec on cpu, 2 processes, epochs 2 to 3: those after the restart\n" in after
    assert notices(printed(killed, 1, 0, "err")) == ["restart 1: goes on after epoch 1"]
    ends = [checkpoint.load(path) for folder in (whole, killed) for path in folder.glob("trainings/*.pt")]
    assert ends[0]["epoch"]["train_loss"] == ends[1]["epoch"]["train_loss"]
    assert furthest(ends[1]["model"], ends[0]["model"]) == 0  # to the bit


@with_gloo
def test_one_that_is_gone_or_stopped_ends_the_others_with_one_line(launched):
    words = {"killed": "lost the connection to another process", "stopped": "waited in vain for another process"}
    for folder in (launched / "killed", launched / "stopped"):
        line = notices(printed(folder, 0, 0, "err"))
        # torchrun ends the others itself when it sees one killed, so they may have had no time to speak.
        assert folder.name == "killed" or len(line) == 1
        assert all(f"process 0 of 2: {words[folder.name]}" in each for each in line)
    assert (launched / "stopped" / "code of 0").read_text() == "1"


def kept(tmp_path, monkeypatch, restarts=0, **settings):
    monkeypatch.setenv("BNBENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a run")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restarts))
    said = []
    return Kept({"lr": 1.0, **settings}, ALONE, said.append), said


def test_a_checkpoint_is_for_a_restart_of_the_same_training(tmp_path, monkeypatch):
    network, epoch = lenet("naive", seed=0), Epoch(2, 0.5, 0.8, 0.7, 100, 4, 1.0, 2.0)
    kept(tmp_path, monkeypatch)[0].save(network, epoch)
    other = lenet("naive", seed=1)
    assert kept(tmp_path, monkeypatch)[0].restore(other) is None  # another start of the same name
    assert kept(tmp_path, monkeypatch, 1, lr=0.5)[0].restore(other) is None
    again = kept(tmp_path, monkeypatch, 1)[0]
    assert again.restore(other) == epoch
    assert furthest(other.state_dict(), network.state_dict()) == 0
    again.forget()
    assert list((tmp_path / "trainings").iterdir()) == []
    assert again.restore(other) is None


def test_a_checkpoint_that_cannot_be_written_or_read_is_no_end(tmp_path, monkeypatch):
    (tmp_path / "trainings").write_text("a file where the folder should be")
    keeper, said = kept(tmp_path, monkeypatch)
    keeper.save(lenet("naive"), Epoch(2, 0.5, 0.8, 0.7, 100, 4, 1.0, 2.0))
    assert len(said) == 1
    assert said[0].startswith("no checkpoint of epoch 2: ")
    (tmp_path / "damaged.pt").write_bytes(b"nonsense")
    assert checkpoint.load(tmp_path / "damaged.pt") is None


def test_a_restart_after_the_last_epoch_says_what_was_trained(tmp_path, monkeypatch, capsys):
    command = ["--norm", "naive", *FEW]
    monkeypatch.setattr(checkpoint, "forget", lambda _: None)
    kept(tmp_path, monkeypatch)
    assert training_cli.main(command) == 0
    [expected] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("loss")]
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert training_cli.main(command) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["training on cpu", expected]
    assert notices(err) == [
        "restart 1: goes on after epoch 1",
        "no examples/sec: all epochs are from before the restart",
    ]


# --- The command line ------------------------------------------------------------------------------------------------


@with_gloo
def test_what_has_no_steps_is_refused_once_and_ends_all(launched):
    folder = launched / "refused"
    errors = [printed(folder, 0, rank, "err").splitlines() for rank in (0, 1)]
    assert errors[1] == []
    assert len(errors[0]) == 1
    assert "error: builtin can't be synchronized" in errors[0][0]
    assert {(folder / f"code of {rank}").read_text() for rank in (0, 1)} == {"2"}


def test_one_process_has_whole_batches(capsys):
    def lines(*options):
        assert training_cli.main(["--norm", "naive", *FEW, *options]) == 0
        out, err = capsys.readouterr()
        return [line for line in out.splitlines() if "/sec" not in line], notices(err)

    (synchronized, told), (local, _) = lines("--sync"), lines()
    assert synchronized == local
    assert told == ["--sync changes nothing: one process has whole batches"]


@pytest.fixture
def port(monkeypatch):
    """One that another program listens at, with the variables of the first of two processes."""
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))  # noqa: S104 - as torch's store does
        taken.listen()
        for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_PORT": taken.getsockname()[1]}.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        yield taken


@with_gloo
@pytest.mark.parametrize(("others", "reason"), [("a program", "EADDRINUSE"), ("nobody", "waiting for clients")])
def test_those_who_don_t_meet_say_so_once(port, monkeypatch, capfd, others, reason):
    monkeypatch.setattr(torchrun, "SECONDS", 1.0)
    if others == "nobody":
        port.close()
    assert training_cli.main(["--norm", "naive", *FEW]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("python -m models.training: error: the processes didn't meet: ")
    assert reason in err


@pytest.mark.parametrize("wrong", [["--epochs", "0"], ["--device", "gpu"], ["--device", "cpu:1"]])
def test_other_processes_let_the_first_say_what_is_wrong(monkeypatch, capsys, wrong):
    waits = []
    monkeypatch.setattr(torchrun.time, "sleep", lambda seconds: waits.append((seconds, capsys.readouterr())))
    monkeypatch.setenv("RANK", "1")
    try:
        code = training_cli.main(["--norm", "naive", *wrong])
    except SystemExit as end:
        code = end.code
    assert code in (2, 4)
    assert waits == [(torchrun.FIRST_SPEAKS_SECONDS, ("", ""))]
    assert "error: " in capsys.readouterr().err


def test_each_process_has_a_gpu_of_its_own_or_all_are_refused(monkeypatch):
    def find(name):
        if int(name.partition(":")[2] or 0) >= 2:
            raise DeviceUnavailableError("no cuda device 2: this machine has 2")
        return torch.device(name)

    monkeypatch.setattr(torchrun.device, "find", find)
    monkeypatch.setattr(torchrun.device, "select", find)
    assert torchrun.own_device("cuda") == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert torchrun.own_device("cuda") == torch.device("cuda:1")
    assert torchrun.own_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(DeviceUnavailableError, match="this machine has 2"):
        torchrun.own_device("cuda")


def test_more_processes_than_cores_are_warned_about(monkeypatch):
    assert torchrun.why_slow(torch.device("cpu")) is None
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "10000")
    assert "10000 processes share" in torchrun.why_slow(torch.device("cpu"))
    assert torchrun.why_slow(torch.device("cuda", 0)) is None

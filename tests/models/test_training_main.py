"""`python -m models.training`: the lesson's lines, and what it says to bad input."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from models.fashion_mnist import EMBEDDED
from models.recipes import RECIPES
from models.resnet import ResNet
from models.training import Settings
from models.training import __main__ as training_cli

ROOT = Path(__file__).parents[2]
FEW = ["--data-dir", str(EMBEDDED), "--limit", "512"]

LINES = r"""training on cpu
epoch 1, step 1, train loss \d\.\d{3}, train acc 0\.\d{3}
epoch 1, step 2, train loss \d\.\d{3}, train acc 0\.\d{3}
epoch 1, test acc 0\.\d{3}
loss \d\.\d{3}, train acc 0\.\d{3}, test acc 0\.\d{3}
\d+\.\d examples/sec on cpu
\d+\.\d examples/sec of the whole \d+\.\d s: loading .*, warm-up .*, steps .*, evaluation \d+\.\d
"""


def test_prints_the_lessons_lines_to_stdout_and_the_rest_to_stderr():
    command = [sys.executable, "-m", "models.training", "--norm", "builtin", "--epochs", "1", *FEW]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(LINES, done.stdout), done.stdout
    assert done.stderr.startswith("data: First images of embedded subset of Fashion-MNIST, 512 + 86 images")
    assert done.stderr.rstrip("\n").count("\n") == 0  # old versions of rich end with an empty line


def test_numbers_of_the_last_lines_are_those_of_the_last_epoch(capsys):
    assert training_cli.main(["--norm", "none", "--epochs", "2", *FEW]) == 0
    lines = capsys.readouterr().out.splitlines()
    last_step, last_test, summary = lines[-5], lines[-4], lines[-3]
    train_loss, train_accuracy = re.search(r"epoch 2, step 2, train loss (\S+), train acc (\S+)", last_step).groups()
    test_accuracy = last_test.removeprefix("epoch 2, test acc ")
    assert summary == f"loss {train_loss}, train acc {train_accuracy}, test acc {test_accuracy}"


def test_the_other_network_trains_at_its_own_settings_or_at_those_asked_for(capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(training_cli, "train", lambda model, _, settings, **__: asked.append((model, settings)) or [])
    monkeypatch.setattr(training_cli, "warm_up", lambda *_: 0.0)
    monkeypatch.setattr(training_cli, "_summary", lambda *_: None)
    network = ["--norm", "builtin", "--network", "resnet20", *FEW]
    assert training_cli.main(network) == 0
    assert training_cli.main([*network, "--lr", "0.5", "--batch-size", "64", "--epochs", "2", "--seed", "1"]) == 0
    capsys.readouterr()
    (model, by_itself), (_, as_asked) = asked
    assert isinstance(model, ResNet)
    assert by_itself == RECIPES["resnet20"].settings
    assert as_asked == Settings(epochs=2, batch_size=64, lr=0.5, seed=1)


def test_seed_decides(capsys):
    def losses(*arguments):
        assert training_cli.main(["--norm", "builtin", "--epochs", "1", *FEW, *arguments]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]

    assert losses("--seed", "3") == losses("--seed", "3") != losses("--seed", "4")


def test_takes_anyones_file(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(
        "import torch.nn.functional as F\n"
        "def mine(input, running_mean, running_var, weight=None, bias=None,\n"
        "         training=False, momentum=0.1, eps=1e-5):\n"
        "    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)\n"
    )
    assert training_cli.main(["--norm", f"{tmp_path / 'mine.py'}:mine", "--epochs", "1", *FEW]) == 0
    mine = capsys.readouterr().out.splitlines()
    assert training_cli.main(["--norm", "builtin", "--epochs", "1", *FEW]) == 0
    assert capsys.readouterr().out.splitlines()[:5] == mine[:5]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--norm", "builtn"], 2, "builtin"),
        (["--norm", "no_such.py:f"], 2, "no_such.py"),
        (["--norm", "builtin", "--data-dir", "no-such-folder"], 2, "no-such-folder is no folder"),
        (["--norm", "builtin", "--data-dir", str(EMBEDDED), "--limit", "257"], 2, "last batch of one image"),
        (["--norm", "builtin", "--seed", str(2**32)], 2, "seed must be between"),
        (["--norm", "builtin", "--device", "gpu"], 2, "unknown device 'gpu', choose from cpu, cuda"),
        (["--norm", "builtin", "--device", "cpu:1"], 4, "no cpu device 1: this machine has 1"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(capsys, arguments, code, message):
    assert training_cli.main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network", "resnet21"], "argument --network: invalid choice: 'resnet21'"),
        (["--epochs", "0"], "argument --epochs: must be at least 1, not 0"),
        (["--epochs", "-3"], "argument --epochs: must be at least 1, not -3"),
        (["--epochs", "ten"], "argument --epochs: 'ten' is no whole number"),
        (["--batch-size", "1"], "argument --batch-size: must be at least 2"),
        (["--lr", "0"], "argument --lr: must be a finite number above 0"),
        (["--lr", "nan"], "argument --lr: must be a finite number above 0"),
        (["--limit", "1"], "argument --limit: must be at least 2"),
    ],
)
def test_arguments_out_of_range_are_argparse_errors(capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        training_cli.main(["--norm", "builtin", *arguments])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_implementation_that_is_missing_here_exits_with_4(tmp_path, capsys):
    (tmp_path / "absent.py").write_text(
        "import torch.nn.functional as F\n"
        "from kernels import Implementation\n"
        "IMPLEMENTATION = Implementation(\n"
        "    'absent', 's', F.batch_norm, why_unavailable=lambda device: 'needs a moon')\n"
    )
    assert training_cli.main(["--norm", str(tmp_path / "absent.py"), *FEW]) == 4
    assert "absent.py is not available on cpu: needs a moon" in capsys.readouterr().err


def test_interruption_is_one_line_and_130(monkeypatch, capsys):
    def interrupt(*_, **__):
        yield from ()
        raise KeyboardInterrupt

    monkeypatch.setattr(training_cli, "train", interrupt)
    assert training_cli.main(["--norm", "builtin", *FEW]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "python -m models.training: error: interrupted"

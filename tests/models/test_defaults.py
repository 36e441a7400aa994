"""torch's default device and type, and a home folder's sign, mean here what they mean elsewhere."""

from pathlib import Path

import pytest
import torch

from models import fashion_mnist
from models.fashion_mnist import EMBEDDED, DataError
from models.lenet import lenet
from models.resnet import resnet20
from models.training import shuffled


@pytest.fixture
def elsewhere():
    with torch.device("meta"):
        yield


@pytest.mark.usefixtures("elsewhere")
def test_the_batch_order_stays_on_the_cpu():
    assert shuffled(7, 0, 1).tolist() == shuffled(7, 0, 1).tolist()
    assert shuffled(7, 0, 1).device.type == "cpu"


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("build", [lenet, resnet20])
def test_networks_go_where_layers_go(build):
    assert {t.device.type for t in build("naive", seed=0).state_dict().values()} == {"meta"}
    assert {t.device.type for t in build("naive", seed=0, device="cpu").state_dict().values()} == {"cpu"}


def test_a_default_type_changes_the_type_of_the_weights_and_not_the_draw():
    plain = lenet("naive", seed=0).state_dict()
    torch.set_default_dtype(torch.float64)
    try:
        wide = lenet("naive", seed=0).state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    assert wide["0.weight"].dtype == torch.float64
    assert torch.equal(wide["0.weight"].float(), plain["0.weight"])


def test_the_sign_of_a_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").symlink_to(EMBEDDED.resolve())
    assert fashion_mnist.load("~/data", limit=2).source.endswith("from --data-dir")


def test_a_home_that_is_not_there_is_one_line(monkeypatch):
    def homeless(_path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(DataError, match="--data-dir ~/data: Could not determine home directory"):
        fashion_mnist.load("~/data")

"""Fashion-MNIST: where it is found, and that damaged data are never used."""

import functools
import gzip
import hashlib
import http.server
import re
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch
from torchvision import datasets

from models import download, fashion_mnist, make_subset
from models.fashion_mnist import EMBEDDED, FILES, FULL, SUBSET, DataError, load

IMAGES = f"{FILES[0]}.gz"


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch, tmp_path):
    """No cache, no package, no network, so that nothing here depends on the machine."""
    monkeypatch.setenv("BNBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BNBENCH_OFFLINE", "1")
    monkeypatch.setattr(fashion_mnist, "SYSTEM", tmp_path / "no-package")


def copy_of_the_subset(folder, *, plain=False):
    folder.mkdir(parents=True)
    for name in FILES:
        if plain:
            (folder / name).write_bytes(gzip.decompress((EMBEDDED / f"{name}.gz").read_bytes()))
        else:
            shutil.copy(EMBEDDED / f"{name}.gz", folder)
    return folder


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# The data


def test_embedded_subset_is_balanced_images_and_labels():
    data = load(EMBEDDED)
    assert data.train_images.shape == (6000, 1, 28, 28)
    assert data.test_images.shape == (1000, 1, 28, 28)
    assert data.train_images.dtype == data.test_images.dtype == torch.uint8
    assert data.train_labels.dtype == data.test_labels.dtype == torch.int64
    assert data.train_labels.bincount().tolist() == [600] * 10
    assert data.test_labels.bincount().tolist() == [100] * 10
    # Images belong to their labels: trousers (1) are alike, and unlike bags (8).
    trousers = data.train_images[data.train_labels == 1].float().mean(0)
    more_trousers = data.test_images[data.test_labels == 1].float().mean(0)
    bags = data.test_images[data.test_labels == 8].float().mean(0)
    assert (trousers - more_trousers).abs().mean() < 5 < 40 < (trousers - bags).abs().mean()


def test_embedded_subset_is_small_and_licensed():
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 4e6
    assert "MIT" in (EMBEDDED / "README.md").read_text(encoding="utf-8")


def test_source_says_what_the_data_are_and_no_path(tmp_path):
    data = load(copy_of_the_subset(tmp_path / "data"))
    assert data.source == "Embedded subset of Fashion-MNIST, 6,000 + 1,000 images, from --data-dir"
    assert data.name == "fashion-mnist-subset"


def test_limit_takes_the_first_images_and_the_same_share_of_the_test():
    whole, part = load(EMBEDDED), load(EMBEDDED, limit=99)
    assert torch.equal(part.train_images, whole.train_images[:99])
    assert torch.equal(part.train_labels, whole.train_labels[:99])
    assert torch.equal(part.test_images, whole.test_images[:17])
    assert part.name == "fashion-mnist-subset[:99]"
    assert "99 + 17 images" in part.source
    assert part.digest != whole.digest
    assert load(EMBEDDED, limit=10**6).digest == whole.digest
    with pytest.raises(ValueError, match="at least 1"):
        load(EMBEDDED, limit=0)


def test_subset_is_made_of_the_first_of_each_class():
    labels = torch.tensor([2, 0, 1, 0, 0, 1, 2, 9, 1])
    assert make_subset.balanced(labels, 2).tolist() == [0, 1, 2, 3, 5, 6, 7]


def test_subset_can_be_made_again(tmp_path, capsys):
    system = Path("/usr/share/datasets/fashion-mnist")
    if not system.is_dir():
        pytest.skip("needs the full Fashion-MNIST, from the package dataset-fashion-mnist")
    make_subset.main([str(tmp_path / "made"), "--data-dir", str(system)])
    printed = dict(re.findall(r'"(.*)": "(.*)"', capsys.readouterr().out))
    assert printed == SUBSET.sha256
    assert load(tmp_path / "made").digest == load(EMBEDDED).digest


# The lookup


@pytest.mark.parametrize("layout", [".", "raw", "FashionMNIST/raw"])
@pytest.mark.parametrize("plain", [False, True])
def test_layouts_and_compression(tmp_path, layout, plain):
    copy_of_the_subset(tmp_path / "data" / layout, plain=plain)
    assert load(tmp_path / "data").digest == load(EMBEDDED).digest


def test_order_of_places(tmp_path, monkeypatch):
    assert "from" not in load(announce=lambda _: None).source
    monkeypatch.setattr(fashion_mnist, "SYSTEM", copy_of_the_subset(tmp_path / "package"))
    assert load().source.endswith("from the system package")
    copy_of_the_subset(tmp_path / "cache")
    assert load().source.endswith("from the cache")
    assert load(EMBEDDED).source.endswith("from --data-dir")


def test_named_folder_without_data_is_never_replaced_by_other_data(tmp_path):
    folder = copy_of_the_subset(tmp_path / "data")
    (folder / f"{FILES[3]}.gz").unlink()
    with pytest.raises(DataError, match=f"^--data-dir {folder} does not hold all of.*{FILES[3]}"):
        load(folder)
    with pytest.raises(DataError, match=r"missing is no folder$"):
        load(tmp_path / "missing")


def test_without_data_or_network_the_subset_is_announced(tmp_path):
    lines = []
    data = load(announce=lines.append)
    assert data.source == "Embedded subset of Fashion-MNIST, 6,000 + 1,000 images"
    assert len(lines) == 1
    assert "BNBENCH_OFFLINE is set" in lines[0]
    assert "using the embedded subset" in lines[0]
    assert not (tmp_path / "cache").exists()


# Damage


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def swap_for_the_test_images(path):
    shutil.copy(path.with_name(path.name.replace("train", "t10k")), path)


DAMAGES = [flip_a_bit, truncate, swap_for_the_test_images]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_named_with_both_checksums(tmp_path, damage, plain):
    folder = copy_of_the_subset(tmp_path / "data", plain=plain)
    path = folder / (FILES[0] if plain else IMAGES)
    damage(path)
    with pytest.raises(DataError) as caught:
        load(folder)
    message = str(caught.value)
    assert str(path) in message
    assert SUBSET.sha256[FILES[0]] in message
    found = re.search(r"found ([0-9a-f]{64});", message)[1]
    assert found != SUBSET.sha256[FILES[0]]
    if plain:
        assert found == sha256(path)
    assert "\n" not in message


def test_truncated_trailer_of_gzip_is_damage_although_the_images_are_whole(tmp_path):
    folder = copy_of_the_subset(tmp_path / "data")
    (folder / IMAGES).write_bytes((folder / IMAGES).read_bytes()[:-1])
    with pytest.raises(DataError, match="ends too early"):
        load(folder)


@pytest.mark.parametrize("place", ["cache", "package"])
def test_damage_is_no_reason_to_take_other_data_in_silence(tmp_path, monkeypatch, place):
    monkeypatch.setattr(fashion_mnist, "SYSTEM", tmp_path / "package")
    folder = copy_of_the_subset(tmp_path / place)
    truncate(folder / IMAGES)
    with pytest.raises(DataError, match=f"{folder / IMAGES} is damaged .* delete it"):
        load()


# The download


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """torchvision's own download, from a server on this machine that offers the embedded subset."""
    served = tmp_path / "served"
    copy_of_the_subset(served)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    checksums = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in served.iterdir()]  # noqa: S324
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.delenv("BNBENCH_OFFLINE")
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(datasets.FashionMNIST, "resources", checksums)
    yield served
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("mirror")
def test_download_arrives_whole_in_the_cache(tmp_path):
    lines = []
    download.fetch(tmp_path / "cache", SUBSET.sha256, lines.append)
    assert {path.name: sha256(path) for path in (tmp_path / "cache").iterdir()} == SUBSET.sha256
    assert lines == ["downloading Fashion-MNIST (30 MB) through torchvision"]
    assert load(announce=pytest.fail).source.endswith("from the cache")


@pytest.mark.usefixtures("mirror")
def test_download_with_another_checksum_is_not_kept(tmp_path):
    lines = []
    data = load(announce=lines.append)  # expects the full set, and the mirror has the subset
    assert data.name == "fashion-mnist-subset"
    assert FULL.sha256[FILES[0]] in lines[-1]
    assert SUBSET.sha256[FILES[0]] in lines[-1]
    assert not any((tmp_path / "cache").iterdir())


def test_download_that_fails_halfway_leaves_nothing(tmp_path, mirror):
    (mirror / f"{FILES[3]}.gz").unlink()
    with pytest.raises(download.DownloadError, match="404"):
        download.fetch(tmp_path / "cache", SUBSET.sha256, lambda _: None)
    assert not any((tmp_path / "cache").iterdir())


def test_download_that_hangs_is_given_up(tmp_path, monkeypatch):
    release = threading.Event()
    monkeypatch.delenv("BNBENCH_OFFLINE")
    monkeypatch.setattr(download, "_run_torchvision", lambda *_: release.wait(30))
    monkeypatch.setattr(download, "STALL_SECONDS", 0.3)
    lines = []
    start = time.monotonic()
    data = load(announce=lines.append)
    seconds = time.monotonic() - start
    release.set()
    assert data.name == "fashion-mnist-subset"
    assert "no answer from the network" in lines[-1]
    assert seconds < 5
    assert not any((tmp_path / "cache").iterdir())


def test_cache_that_cannot_be_written_is_a_reason_and_no_crash(tmp_path, monkeypatch):
    monkeypatch.delenv("BNBENCH_OFFLINE")
    (tmp_path / "cache").write_text("a file in the way")
    lines = []
    assert load(announce=lines.append).name == "fashion-mnist-subset"
    assert "the cache folder cannot be written" in lines[-1]

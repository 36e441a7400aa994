"""Fashion-MNIST as tensors that stay on the device: where it is looked up, and how it is verified.

The data are the 28 x 28 gray images of ten kinds of clothing by Xiao, Rasul and Vollgraf (2017,
"Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms"), MIT licensed. Lookup, in
order:

1. the folder that the user names; if it lacks the files, that is an error and never a silent fallback
2. the cache directory: `$BNBENCH_CACHE`, else `$XDG_CACHE_HOME/bnbench`, else `~/.cache/bnbench`
3. the system's package (Debian and Ubuntu: `dataset-fashion-mnist`)
4. torchvision's download, into the cache; `BNBENCH_OFFLINE=1` leaves it out
5. the embedded subset (`models/data`), announced

Every file is verified by checksum before use. A damaged one is an error wherever it was found: continuing with
the next source would hide that the figures come from other data than the user believes.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kernels.cache import cache_dir
from models import download, idx
from models.idx import DataError

__all__ = ["EMBEDDED", "FULL", "SUBSET", "DataError", "Edition", "FashionMNIST", "load"]

EMBEDDED = Path(__file__).parent / "data"
SYSTEM = Path("/usr/share/datasets/fashion-mnist")
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class Edition:
    """One version of the data set, known by its checksums.

    Attributes:
        name: Short, for records and file names.
        title: For tables.
        sha256: File name without `.gz` → hexadecimal SHA-256 of its decompressed content.
    """

    name: str
    title: str
    sha256: dict[str, str]


# Checked against the MD5 sums of the publisher's own .gz files (those in torchvision): the Debian package's
# files with the publisher's gzip header restored match them.
FULL = Edition(
    "fashion-mnist",
    "Fashion-MNIST",
    {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
)
# Printed by models/make_subset.py.
SUBSET = Edition(
    "fashion-mnist-subset",
    "embedded subset of Fashion-MNIST",
    {
        "train-images-idx3-ubyte": "cf313073c7eb485392848071d5c433571d7166043e971e3345b095cc30518084",
        "train-labels-idx1-ubyte": "097b93fbcf9bd5bc648b1a457ddc55c9e4ab49afb33f9ecae8ce068399a75e3a",
        "t10k-images-idx3-ubyte": "7cee33c3c6414b1b86c25e665a6c4f41584269de3b7cc9768b1d351922845eef",
        "t10k-labels-idx1-ubyte": "3128d790775889812b73c4f13923559c8b9e281d112c6ea7862acf60a206a909",
    },
)


@dataclass(frozen=True)
class FashionMNIST:
    """Images and labels, resident on one device.

    Attributes:
        train_images: uint8, (N, 1, 28, 28).
        train_labels: int64, (N,), 0 to 9.
        test_images: uint8, (M, 1, 28, 28).
        test_labels: int64, (M,), 0 to 9.
        name: `fashion-mnist`, `fashion-mnist-subset`, or one of them with `[:LIMIT]` when limited.
        source: One line for tables and records: what the data are, how many, and from which kind of place.
        digest: Hexadecimal SHA-256 over the checksums of the four files and the limit: two results with the
            same digest were trained and tested on the same images.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    name: str
    source: str
    digest: str


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def load(
    data_dir: str | os.PathLike[str] | None = None,
    *,
    device: torch.device | str = "cpu",
    limit: int | None = None,
    announce: Callable[[str], None] = _print_to_stderr,
) -> FashionMNIST:
    """Find, verify and decode Fashion-MNIST, and move it to `device`.

    Without network, data or folder this takes at most 15 seconds and returns the embedded subset. The full
    set from the system's package takes about half a second.

    Args:
        data_dir: Folder (`~` is expanded) with the four idx files, `.gz` or plain, in itself, in `raw` or in
            `FashionMNIST/raw` (torchvision's layout). They may be the full set or the embedded subset.
        device: Where the tensors stay.
        limit: Keep the first `limit` training images, and of the test images the same share (rounded up).
        announce: Called with one line when a download starts, and when the subset stands in.

    Raises:
        DataError: `data_dir` lacks the files, or a file is damaged or altered, wherever it was found.
        ValueError: `limit` is less than 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    paths, place = _find(_expanded(data_dir) if data_dir is not None else None, announce)
    files = [idx.read(path) for path in paths]
    edition = _verify(files)
    train_images, train_labels, test_images, test_labels = (idx.parse(file) for file in files)
    name = edition.name
    title = edition.title
    if limit is not None and limit < len(train_images):
        test_limit = -(-limit * len(test_images) // len(train_images))
        train_images, train_labels = train_images[:limit], train_labels[:limit]
        test_images, test_labels = test_images[:test_limit], test_labels[:test_limit]
        name, title = f"{name}[:{limit}]", f"first images of {title}"
    origin = f", {place}" if place else ""
    facts = " ".join([name, *(file.sha256 for file in files)])
    return FashionMNIST(
        train_images.unsqueeze(1).to(device),
        train_labels.to(device, torch.int64),
        test_images.unsqueeze(1).to(device),
        test_labels.to(device, torch.int64),
        name=name,
        source=f"{title[0].upper()}{title[1:]}, {len(train_images):,} + {len(test_images):,} images{origin}",
        digest=hashlib.sha256(facts.encode()).hexdigest(),
    )


def _expanded(folder: str | os.PathLike[str]) -> Path:
    """With `~` for the user's home, which a shell leaves as it is in `--data-dir=~/data`."""
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:  # there is no such user, or none has a home
        raise DataError(f"--data-dir {folder}: {error}") from None


def _find(data_dir: Path | None, announce: Callable[[str], None]) -> tuple[list[Path], str]:
    """Return the four files and the kind of place where they are, in words without a path."""
    if data_dir is not None:
        paths = _files_in(data_dir)
        if paths is None:
            what = f"does not hold all of {', '.join(FILES)} (.gz or plain)" if data_dir.is_dir() else "is no folder"
            raise DataError(f"--data-dir {data_dir} {what}")
        return paths, "from --data-dir"
    cache = cache_dir()
    paths = _files_in(cache)
    if paths is not None:
        return paths, "from the cache"
    paths = _files_in(SYSTEM)
    if paths is not None:
        return paths, "from the system package"
    try:
        download.fetch(cache, FULL.sha256, announce)
        paths = _files_in(cache)
        if paths is not None:
            return paths, "downloaded by torchvision"
        reason = "the download left no files"
    except download.DownloadError as error:
        reason = str(error)
    announce(f"Fashion-MNIST is not on this machine and was not downloaded ({reason}): using the {SUBSET.title}.")
    paths = _files_in(EMBEDDED)
    if paths is None:
        raise DataError(f"the {SUBSET.title} is missing from {EMBEDDED}: restore it from the repository")
    return paths, ""


def _files_in(folder: Path) -> list[Path] | None:
    """Return the four files of the first layout in `folder` that has them all, plain before `.gz`."""
    for layout in (folder, folder / "raw", folder / "FashionMNIST" / "raw"):
        paths = []
        for name in FILES:
            # Plain first: it spares the decompression.
            paths += [path for path in (layout / name, layout / f"{name}.gz") if path.is_file()][:1]
        if len(paths) == len(FILES):
            return paths
    return None


def _verify(files: list[idx.IdxFile]) -> Edition:
    """Return the edition that the files belong to; raise `DataError` for one that is damaged."""
    known = dict(zip(FILES, files, strict=True))
    # One intact file of the subset tells that the others are meant to be the subset's, too.
    is_subset = any(known[name].sha256 == checksum for name, checksum in SUBSET.sha256.items())
    edition = SUBSET if is_subset else FULL
    for name, file in known.items():
        file.verify(edition.sha256[name], advice="delete it, or restore it from its source")
    return edition

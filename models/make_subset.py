"""Make the embedded subset: `python -m models.make_subset FOLDER [--data-dir FOLDER]`.

The first 600 training and the first 100 test images of each class, in their original order, written as four
idx `.gz` files. The same data, Python and zlib give the same bytes; the checksums that are printed, and that
`models/fashion_mnist.py` holds, are of the decompressed content and depend on the data alone.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
from pathlib import Path

import torch
from torch import Tensor

from models import fashion_mnist, idx

TRAIN_PER_CLASS = 600
TEST_PER_CLASS = 100
CLASSES = 10


def balanced(labels: Tensor, per_class: int) -> Tensor:
    """Return the ascending indices of the first `per_class` examples of each class, int64."""
    chosen = [(labels == label).nonzero().flatten()[:per_class] for label in range(CLASSES)]
    return torch.cat(chosen).sort().values


def main(argv: list[str] | None = None) -> int:
    """Write the four files and print their checksums."""
    parser = argparse.ArgumentParser(prog="python -m models.make_subset", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--data-dir", help="the full data set, if it is not where it is looked up")
    options = parser.parse_args(argv)

    data = fashion_mnist.load(options.data_dir)
    if data.name != fashion_mnist.FULL.name:
        parser.error(f"the subset is made of the full data set, and this is: {data.source}")
    train = balanced(data.train_labels, TRAIN_PER_CLASS)
    test = balanced(data.test_labels, TEST_PER_CLASS)
    tensors = (
        data.train_images[train].squeeze(1),
        data.train_labels[train].to(torch.uint8),
        data.test_images[test].squeeze(1),
        data.test_labels[test].to(torch.uint8),
    )
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, tensor in zip(fashion_mnist.FILES, tensors, strict=True):
        content = idx.encode(tensor)
        (options.folder / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=9, mtime=0))
        print(f'"{name}": "{hashlib.sha256(content).hexdigest()}",')
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

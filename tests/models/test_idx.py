"""The idx format, read and written."""

import gzip

import pytest
import torch

from models import idx


def test_encode_and_parse_are_inverse(tmp_path):
    values = torch.arange(60, dtype=torch.uint8).view(3, 4, 5)
    (tmp_path / "a").write_bytes(idx.encode(values))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx.encode(values)))
    assert torch.equal(idx.parse(idx.read(tmp_path / "a")), values)
    assert torch.equal(idx.parse(idx.read(tmp_path / "a.gz")), values)


def test_header_is_the_published_one():
    assert idx.encode(torch.zeros(2, 3, dtype=torch.uint8)).hex() == "00000802" + "00000002" + "00000003" + "00" * 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file"),
        (b"<html>", "not an idx file"),
        (bytes.fromhex("00000d01 00000001 00000000"), "not an idx file"),  # float32
        (bytes.fromhex("00000802 00000001"), "ends within its idx header"),
        (bytes.fromhex("00000801 00000003 0102"), "states .3,. in its idx header and holds 2"),
        (bytes.fromhex("00000801 00000003 01020304"), "holds 4"),
    ],
)
def test_what_is_no_idx_file_is_an_error_that_names_it(tmp_path, content, message):
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(idx.DataError, match=f"labels.*{message}"):
        idx.parse(idx.read(tmp_path / "labels"))

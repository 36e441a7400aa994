"""The idx format of the MNIST family, and its checksums.

A file is identified by the SHA-256 of its *decompressed* content: packagers recompress, so that the
`.gz` files of two sources differ although the images in them are the same.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_CHUNK = 1 << 20
_UNSIGNED_BYTE = 0x08


class DataError(Exception):
    """Data that are missing, damaged or altered; the message is one line for the user."""


@dataclass(frozen=True)
class IdxFile:
    """The decompressed content of one file, with its checksum.

    Attributes:
        path: Where it was read.
        content: The bytes of the idx format, as far as they could be decompressed.
        sha256: Hexadecimal digest of `content`.
        defect: What is wrong with the compressed stream, or None.
    """

    path: Path
    content: bytes
    sha256: str
    defect: str | None = None

    def verify(self, expected: str, advice: str) -> None:
        """Raise `DataError` unless the content is whole and has the checksum `expected`.

        Args:
            expected: Hexadecimal SHA-256 of the decompressed content.
            advice: What the user can do about it, the end of the message.
        """
        if self.defect is None and self.sha256 == expected:
            return
        defect = f" ({self.defect})" if self.defect else ""
        raise DataError(
            f"{self.path} is damaged or altered{defect}: expected SHA-256 {expected} of its decompressed "
            f"content, found {self.sha256}; {advice}"
        )


def read(path: Path) -> IdxFile:
    """Read one idx file, `.gz` or plain.

    A damaged `.gz` does not raise here: what could be decompressed is returned with the defect, so that
    `IdxFile.verify` can tell the user both checksums.

    Raises:
        DataError: The file cannot be opened or read.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    content, defect = _decompress(raw) if path.suffix == ".gz" else (raw, None)
    return IdxFile(path, content, hashlib.sha256(content).hexdigest(), defect)


def _decompress(raw: bytes) -> tuple[bytes, str | None]:
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # 16: a gzip header and trailer
    chunks = []
    defect = None
    try:
        # In chunks, so that what precedes a damaged spot is there to be counted.
        for start in range(0, len(raw), _CHUNK):
            chunks.append(stream.decompress(raw[start : start + _CHUNK]))  # noqa: PERF401
    except zlib.error as error:
        defect = f"gzip: {error}"
    if defect is None and not stream.eof:
        defect = "gzip: the file ends too early"
    return b"".join(chunks), defect


def parse(file: IdxFile) -> Tensor:
    """Decode the idx format: two zero bytes, the type, the number of dimensions, big-endian sizes, values.

    Source: the description of the format at the end of the original MNIST page
    (http://yann.lecun.com/exdb/mnist/).

    Returns:
        A uint8 tensor of the shape that the header states, which owns its memory.

    Raises:
        DataError: The header is none of idx with unsigned bytes, or the size is not the one it states.
    """
    content = file.content
    if len(content) < 4 or content[:3] != bytes([0, 0, _UNSIGNED_BYTE]):
        raise DataError(f"{file.path} is not an idx file of unsigned bytes (starts with {content[:4].hex(' ')})")
    offset = 4 + 4 * content[3]
    if len(content) < offset:
        raise DataError(f"{file.path} ends within its idx header")
    shape = struct.unpack(f">{content[3]}I", content[4:offset])
    values = torch.frombuffer(bytearray(content), dtype=torch.uint8)[offset:]
    if values.numel() != torch.Size(shape).numel():
        raise DataError(f"{file.path} states {shape} in its idx header and holds {values.numel()} values")
    return values.view(shape)


def encode(values: Tensor) -> bytes:
    """Encode a uint8 tensor in the idx format, the inverse of `parse`."""
    header = bytes([0, 0, _UNSIGNED_BYTE, values.dim()]) + struct.pack(f">{values.dim()}I", *values.shape)
    return header + values.contiguous().numpy().tobytes()

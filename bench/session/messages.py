"""The messages between a parent and the child that measures for it, as frames on a socket.

A request is pickled: the child trusts its parent. A reply is plain data, JSON and the bytes of tensors, since its
sender isn't trusted: loading it runs no code, its size is limited, and it carries the number of its request.
"""

from __future__ import annotations

import io
import json
import math
import pickle
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.measure.efforts import Effort

MAGIC = b"bnbench2"
HEAD = struct.Struct("!8sQQ")
"""Of a reply: the mark, the bytes of its JSON, the bytes of its tensors."""

LENGTH = struct.Struct("!Q")
"""Of a request: its bytes."""

MOST_JSON = 8 << 20
LONGEST_NUMBER = 40
UNHEARD = 120
"""Exit code of a child that can't answer because its end of the connection is closed."""

LOOK_SECONDS = 0.5
"""How often a waiting parent checks that the process is still there: another one may keep the socket open."""

FLOATING = {str(dtype): dtype for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}

Expected = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""The tensors that an answer may hold: type and shape by name."""


class UnreadableError(Exception):
    """A message is no answer; the text says why."""


@dataclass(frozen=True)
class Setup:
    """What a child gets when it starts.

    Attributes:
        spec: The implementation, as `kernels.load` takes it.
        device: As `--device` has it.
        dtype: Of the batch in latency.
        threads: How many torch may use.
        data_dir: As `--data-dir` has it.
        limit: Training images, or None for all.
        memory_bytes: The most that it may allocate, where the system can enforce that; None for no limit.
        effort: How long per cell of the latency tables.
        settled: Whether it sets the memory policy before anything else: see `models.allocator`.
    """

    spec: str
    device: str
    dtype: torch.dtype
    threads: int
    data_dir: str | None
    limit: int | None
    memory_bytes: int | None
    effort: Effort
    settled: bool = True


# The parent's end


class Line:
    """The parent's end of the connection: every call returns before its deadline, even if the child hangs.

    Args:
        connection: A connected socket.
        alive: Whether the process is still there.
    """

    def __init__(self, connection: socket.socket, alive: Callable[[], bool]) -> None:
        self._socket = connection
        self._alive = alive

    def ask(self, number: str, name: str, arguments: tuple[Any, ...], until: float) -> None:
        """Send a request.

        Raises:
            TimeoutError: It isn't received before `until`, on the monotonic clock.
            UnreadableError: The child has sent something without a request.
            EOFError, OSError: It hung up.
        """
        self._socket.setblocking(False)
        try:
            if self._socket.recv(1, socket.MSG_PEEK):
                raise UnreadableError("answered without having been asked")
        except BlockingIOError:
            pass
        content = pickle.dumps((number, name, arguments))
        left = memoryview(LENGTH.pack(len(content)) + content)
        while left:
            self._wait(until)
            try:
                left = left[self._socket.send(left) :]
            except TimeoutError:
                self._look()

    def answer(self, number: str, most_bytes: int, until: float) -> tuple[dict[str, Any], bytes]:
        """The answer to a request, and the bytes of its tensors.

        Args:
            number: Of the request.
            most_bytes: The limit for its tensors.
            until: On the monotonic clock.

        Raises:
            TimeoutError: It isn't there before.
            UnreadableError: What came is no answer, or one to another request.
            EOFError, OSError: The child hung up.
        """
        mark, json_bytes, tensor_bytes = HEAD.unpack(self._read(HEAD.size, until))
        if mark != MAGIC:
            raise UnreadableError("gave no answer that can be read")
        if json_bytes > MOST_JSON or tensor_bytes > most_bytes:
            raise UnreadableError(f"gave an answer of {json_bytes + tensor_bytes:,} bytes, which is too long")
        content = parsed(self._read(json_bytes, until))
        if content.get("number") != number:
            raise UnreadableError("answered an unknown request")
        answer = content.get("answer")
        if not isinstance(answer, dict) or not isinstance(answer.get("status"), str):
            raise UnreadableError("gave no answer that can be read")
        return answer, self._read(tensor_bytes, until)

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _read(self, size: int, until: float) -> bytes:
        received = bytearray()
        while len(received) < size:
            self._wait(until)
            try:
                part = self._socket.recv(min(size - len(received), 1 << 20))
            except TimeoutError:
                self._look()
                continue
            if not part:
                raise EOFError
            received += part
        return bytes(received)

    def _wait(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(min(left, LOOK_SECONDS))

    def _look(self) -> None:
        if not self._alive():
            raise EOFError


def parsed(content: bytes) -> dict[str, Any]:
    """Parse JSON from an untrusted sender.

    Raises:
        UnreadableError: It is not a JSON object.
    """
    try:
        value = json.loads(content, parse_int=_whole_number)
    except (ValueError, RecursionError, MemoryError):  # a UnicodeDecodeError is a ValueError
        raise UnreadableError("gave no answer that can be read") from None
    if not isinstance(value, dict):
        raise UnreadableError("gave no answer that can be read")
    return value


def _whole_number(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:  # to convert a million digits takes minutes
        raise ValueError("a number without end")
    return int(digits)


def packed(content: Any) -> bytes:
    """The tensors of a request as bytes, not as memory that both processes would share."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def unpacked(named: object, content: bytes, expected: Expected | None = None) -> dict[str, Tensor]:
    """The tensors of an answer.

    Args:
        named: What the answer says of them: name, dtype and shape of each.
        content: Their bytes, one after the other.
        expected: What they must be; any of them may be missing. None: any tensors of floating type.

    Raises:
        UnreadableError: They are something else.
    """
    tensors: dict[str, Tensor] = {}
    start = 0
    if expected is None:
        expected = _claimed(named)
    if not isinstance(named, list) or len(named) > len(expected):
        raise UnreadableError("names no tensors that anyone asked for")
    for each in named:
        name = each[0] if isinstance(each, list) and each and isinstance(each[0], str) else ""
        if name not in expected or name in tensors:
            raise UnreadableError("names no tensors that anyone asked for")
        dtype, shape = expected[name]
        if each[1:] != [str(dtype), list(shape)]:
            raise UnreadableError(f"{name} is not {dtype} of shape {list(shape)}")
        size = dtype.itemsize * math.prod(shape)
        part = bytearray(content[start : start + size])
        if len(part) != size:
            raise UnreadableError(f"{name} is cut off")
        tensors[name] = torch.frombuffer(part, dtype=dtype).view(shape) if size else torch.empty(shape, dtype=dtype)
        start += size
    return tensors


def _claimed(named: object) -> Expected:
    """The types and shapes that an answer gives for its tensors; invalid ones are left out."""
    claimed: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for each in named if isinstance(named, list) else ():
        match each:
            case [str(name), str(dtype), list(shape)] if dtype in FLOATING and all(map(_is_size, shape)):
                claimed[name] = (FLOATING[dtype], tuple(shape))
    return claimed


def _is_size(size: object) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and 0 <= size < 1 << 40


# The child's end


def next_request(connection: socket.socket) -> tuple[str, str, tuple[Any, ...]]:
    """The number, the name and the arguments of the next request.

    Raises:
        EOFError, OSError: The parent hung up.
    """
    (size,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    number, name, arguments = pickle.loads(_exactly(connection, size))  # noqa: S301 - our own parent made it
    return number, name, arguments


def reply(connection: socket.socket, number: str, answer: Mapping[str, Any]) -> None:
    """Answer a request.

    Args:
        connection: To the parent.
        number: Of the request.
        answer: Plain data, but for "tensors": those by name.

    Raises:
        TypeError, ValueError: It is no plain data.
        OSError: The parent hung up.
    """
    tensors: dict[str, Tensor] = answer.get("tensors", {})
    named = [[name, str(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()]
    plain = {**answer, "tensors": named} if tensors else answer
    content = json.dumps({"number": number, "answer": plain}).encode()
    parts = [_bytes(tensor) for tensor in tensors.values()]
    connection.sendall(HEAD.pack(MAGIC, len(content), sum(map(len, parts))) + content)
    for part in parts:
        connection.sendall(part)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _exactly(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = connection.recv(min(size - len(received), 1 << 20))
        if not part:
            raise EOFError
        received += part
    return bytes(received)

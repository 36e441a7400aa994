"""Replies are plain data: whatever a child sends in place of one is an error in good time, and nothing of it runs."""

import json
import socket
import threading
import time

import pytest
import torch

from bench.session import messages
from bench.session.messages import HEAD, MAGIC, MOST_JSON, Line, UnreadableError, next_request, reply, unpacked

NUMBER = "0123456789abcdef"
OK = {"status": "ok"}


@pytest.fixture
def ends():
    """The parent's line to a process that lives, and the child's socket."""
    ours, theirs = socket.socketpair()
    yield Line(ours, lambda: True), theirs
    ours.close()
    theirs.close()


def soon(seconds=5.0):
    return time.monotonic() + seconds


def framed(content, tensors=b"", mark=MAGIC):
    return HEAD.pack(mark, len(content), len(tensors)) + content + tensors


def answered(answer=OK, number=NUMBER):
    return framed(json.dumps({"number": number, "answer": answer}).encode())


def test_a_request_and_its_answer_arrive(ends):
    line, theirs = ends
    tensors = {"dx": torch.randn(3, 4), "half": torch.ones(2, 2, dtype=torch.bfloat16), "none": torch.empty(0, 3)}

    def child():
        number, name, arguments = next_request(theirs)
        reply(theirs, number, {"status": "ok", "asked": [name, *arguments], "tensors": tensors})

    thread = threading.Thread(target=child)
    thread.start()
    line.ask(NUMBER, "solve", (1, "x"), soon())
    answer, content = line.answer(NUMBER, 1000, soon())
    thread.join()
    assert answer["asked"] == ["solve", 1, "x"]
    expected = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    found = unpacked(answer["tensors"], content, expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (b"Traceback (most recent call last):\n  File ...", "gave no answer that can be read"),
        (answered(number="another"), "answered an unknown request"),
        (framed(b'{"answer": {"status": "ok"}}'), "answered an unknown request"),
        (framed(b"[" * 100_000), "gave no answer that can be read"),
        (framed(b'{"a":' * 100_000), "gave no answer that can be read"),
        (framed(b'{"number": 1' + b"0" * 1_000_000 + b"}"), "gave no answer that can be read"),
        (framed(b"\xff\xfe"), "gave no answer that can be read"),
        (framed(b"[1, 2]"), "gave no answer that can be read"),
        (answered(["ok"]), "gave no answer that can be read"),
        (answered({"status": 1}), "gave no answer that can be read"),
        (HEAD.pack(MAGIC, MOST_JSON + 1, 0), f"gave an answer of {MOST_JSON + 1:,} bytes, which is too long"),
        (HEAD.pack(MAGIC, 2, 1 << 60), f"gave an answer of {(1 << 60) + 2:,} bytes, which is too long"),
        (b"\x80\x04\x95" + bytes(40), "gave no answer that can be read"),  # a pickle
    ],
    ids=[
        "text", "stale", "no number", "deep list", "deep object", "long number", "no text", "no object", "no answer",
        "no status", "long", "long tensors", "pickle",
    ],
)  # fmt: skip
def test_an_invalid_answer_is_reported(ends, sent, complaint):
    line, theirs = ends
    threading.Thread(target=theirs.sendall, args=(sent,), daemon=True).start()
    with pytest.raises(UnreadableError, match=f"^{complaint}$"):
        line.answer(NUMBER, 100, soon(20))


def test_an_answer_without_a_request_is_reported_before_the_next_one(ends):
    line, theirs = ends
    theirs.sendall(answered() + answered())
    assert line.answer(NUMBER, 0, soon()) == (OK, b"")
    with pytest.raises(UnreadableError, match=r"^answered without having been asked$"):
        line.ask("1", "measure", (), soon())


def test_half_an_answer_is_waited_for_no_longer_than_agreed(ends):
    line, theirs = ends
    theirs.sendall(answered()[:-1])
    with pytest.raises(TimeoutError):
        line.answer(NUMBER, 0, soon(0.1))


def test_an_answer_in_drops_is_waited_for_no_longer_than_agreed(ends):
    line, theirs = ends
    done = threading.Event()

    def drip():
        for byte in answered():
            if done.wait(0.02):
                return
            theirs.sendall(bytes([byte]))

    threading.Thread(target=drip, daemon=True).start()
    with pytest.raises(TimeoutError):
        line.answer(NUMBER, 0, soon(0.2))
    done.set()


def test_a_question_that_is_not_read_is_waited_for_no_longer_than_agreed(ends):
    line, _ = ends
    with pytest.raises(TimeoutError):
        line.ask(NUMBER, "solve", (bytes(1 << 24),), soon(0.2))


def test_a_process_that_is_gone_is_not_waited_for_although_its_socket_is_held_open(monkeypatch):
    monkeypatch.setattr(messages, "LOOK_SECONDS", 0.01)
    ours, theirs = socket.socketpair()
    line = Line(ours, lambda: False)
    with pytest.raises(EOFError):
        line.answer(NUMBER, 0, soon(60))
    theirs.sendall(answered())  # what it said before is heard
    assert line.answer(NUMBER, 0, soon(60)) == (OK, b"")
    theirs.close()
    with pytest.raises(EOFError):
        line.answer(NUMBER, 0, soon(60))
    line.close()


FOUR = {"dx": (torch.float32, (2, 2)), "dbias": (torch.float32, (2,))}


@pytest.mark.parametrize(
    ("named", "size", "complaint"),
    [
        (None, 0, "names no tensors"),
        ("dx", 0, "names no tensors"),
        ([["dw", "torch.float32", [2, 2]]], 16, "names no tensors"),
        ([[{}, "torch.float32", [2, 2]]], 16, "names no tensors"),
        ([["dx", "torch.float32", [2, 2]]] * 2, 32, "names no tensors"),
        ([["dx", "torch.float32", [2, 2]]] * 3, 48, "names no tensors"),
        ([["dx", "torch.float64", [2, 2]]], 32, "dx is not torch.float32 of shape"),
        ([["dx", "torch.float32", [4]]], 16, "dx is not torch.float32 of shape"),
        ([["dx", "torch.float32", [2, 2]]], 15, "dx is cut off"),
    ],
)
def test_tensors_that_were_not_asked_for_are_refused(named, size, complaint):
    with pytest.raises(UnreadableError, match=complaint):
        unpacked(named, bytes(size), FOUR)


def test_what_is_no_plain_data_is_not_sent():
    class Evil:
        def __reduce__(self):
            return exec, ("raise SystemExit",)

    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TypeError):
        reply(theirs, NUMBER, {"status": "ok", "summary": Evil()})

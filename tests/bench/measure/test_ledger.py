"""What the ledger notes: each storage that autograd keeps, once, at the part that saved it first."""

import torch

from bench.measure.ledger import Ledger
from bench.record.parts import CONVOLUTION, FORWARD, LINEAR, Place

FIRST, SECOND = Place(CONVOLUTION, FORWARD, "first"), Place(LINEAR, FORWARD, "second")
FLOAT32 = 4


def test_a_storage_that_is_saved_twice_counts_once_at_the_first():
    ledger, x = Ledger(), torch.ones(100, requires_grad=True)
    with ledger.hooks():
        ledger.enter(FIRST)
        y = x.sigmoid()  # saves y
        ledger.enter(SECOND)
        z = y * y  # saves y, and y
        w = z[:10].exp()  # saves its result
    assert w.requires_grad
    assert ledger.rows([]) == [
        {"part": CONVOLUTION, "child": "first", "bytes": 100 * FLOAT32},
        {"part": LINEAR, "child": "second", "bytes": 10 * FLOAT32},
    ]


def test_a_view_keeps_its_whole_storage():
    ledger, x = Ledger(), torch.ones(100, requires_grad=True)
    with ledger.hooks():
        ledger.enter(FIRST)
        y = x[:1].square()
    assert y.requires_grad
    assert [row["bytes"] for row in ledger.rows([])] == [100 * FLOAT32]


def test_what_exists_anyway_does_not_count():
    ledger, weight = Ledger(), torch.ones(100, requires_grad=True)
    running = torch.ones(100)
    with ledger.hooks():
        ledger.enter(FIRST)
        y = weight.view(10, 10).square() * running.view(10, 10)
    assert y.requires_grad
    assert ledger.rows([weight, running]) == []
    assert sum(row["bytes"] for row in ledger.rows([weight])) == 100 * FLOAT32
    assert sum(row["bytes"] for row in ledger.rows([])) == 2 * 100 * FLOAT32


def test_what_the_forward_drops_again_is_not_kept():
    ledger, x = Ledger(), torch.ones(100, requires_grad=True)
    with ledger.hooks():
        ledger.enter(FIRST)
        x.exp()
        ledger.enter(SECOND)
        kept = x.exp()
    assert kept.requires_grad
    assert ledger.rows([]) == [{"part": LINEAR, "child": "second", "bytes": 100 * FLOAT32}]


def test_who_gets_the_address_of_what_was_dropped_counts_as_itself():
    ledger, place = Ledger(), bytearray(100 * FLOAT32)

    def squared(count):
        return torch.frombuffer(place, dtype=torch.float32, count=count).requires_grad_().square()

    with ledger.hooks():
        ledger.enter(FIRST)
        squared(100)
        ledger.enter(SECOND)
        kept = squared(10)
    assert kept.requires_grad
    assert ledger.rows([]) == [{"part": LINEAR, "child": "second", "bytes": 10 * FLOAT32}]


def test_the_backward_works_on_what_the_ledger_noted():
    ledger, x = Ledger(), torch.full((3,), 2.0, requires_grad=True)
    with ledger.hooks():
        y = x.pow(3).sum()
    y.backward()
    assert x.grad.tolist() == [12.0, 12.0, 12.0]
    assert ledger.rows([]) == []  # the backward has let go of it


def test_noting_keeps_nothing_alive():
    ledger, x = Ledger(), torch.ones(100, requires_grad=True)
    with ledger.hooks():
        y = x.exp()
    (kept,) = ledger._kept
    assert kept().tensor.data_ptr() == y.data_ptr()
    del y
    assert kept() is None

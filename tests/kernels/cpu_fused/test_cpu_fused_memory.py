"""`cpu_fused` reads and writes its own memory only: guarded buffers, and the compiler's sanitizers."""

import ctypes
import os
import stat
import subprocess
import sys
import textwrap

import pytest
import torch

import kernels
from kernels.cpu_fused import compilation, kernel_calls, library
from kernels.fused.layouts import real_type
from tests.processes import ROOT

CPU = torch.device("cpu")
IMPLEMENTATION = kernels.load("cpu_fused")
pytestmark = pytest.mark.skipif(
    bool(IMPLEMENTATION.why_unavailable(CPU)), reason=str(IMPLEMENTATION.why_unavailable(CPU))
)

# Vectors that are full, that have a rest, and that are all rest; odd planes, whose last row or column has no window.
SHAPES = [
    (12, 21, 1, 1), (2, 3, 2, 2), (9, 4, 2, 3), (3, 2, 9, 14), (2, 3, 15, 17), (5, 2, 3, 31), (12, 5, 24, 24),
    (1, 2, 70, 66), (2, 1, 3, 5000), (3, 40, 5, 8), (1, 9, 8, 8), (9, 6, 7, 11), (3, 600, 3, 2),
]  # fmt: skip
GUARD, SENTINEL = 64, 12345.678


class Guarded:
    """Tensors in the middle of larger ones, whose margins must stay as they are."""

    def __init__(self):
        self.whole = []

    def __call__(self, values):
        values = values.contiguous()
        whole = torch.full((values.numel() + 2 * GUARD,), SENTINEL, dtype=values.dtype)
        self.whole.append(whole)
        return whole[GUARD : GUARD + values.numel()].copy_(values.flatten())

    def margins_are_whole(self):
        return all((torch.cat([w[:GUARD], w[-GUARD:]]) == w.new_tensor(SENTINEL)).all() for w in self.whole)


@pytest.mark.parametrize("dtype", list(library.STORED), ids=str)
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize(
    ("shape", "pool"), [(shape, pool) for shape in SHAPES for pool in (False, True) if min(shape[2:]) > pool], ids=str
)
def test_no_kernel_writes_beyond_its_buffers(shape, pool, rows, dtype):
    if reason := library.why_not(dtype):  # float16, with some compilers
        pytest.skip(reason)
    compiled, real = library.load(dtype), real_type(dtype)
    guarded, channels = Guarded(), shape[1]
    pixels = (shape[2] // 2) * (shape[3] // 2) if pool else shape[2] * shape[3]
    x, dx = guarded(torch.randn(shape).to(dtype)), guarded(torch.zeros(shape, dtype=dtype))
    y, dy = (guarded(torch.randn(shape[0] * channels * pixels).to(dtype)) for _ in range(2))
    saved = guarded(torch.zeros(2 * channels, dtype=torch.float64))
    weight, bias, mean, var, dweight, dbias = (guarded(torch.ones(channels, dtype=real)) for _ in range(6))
    for training in (True, False):
        for threads in (1, 2):
            plan = kernel_calls.Plan(*shape, rows, pool, 1, training, threads)
            pointers = [t.data_ptr() for t in (x, y, saved, weight, bias, mean, var)]
            compiled.batch_norm_forward(ctypes.byref(plan), *pointers, 0.1, 1e-5)
            pointers = [t.data_ptr() for t in (x, dy, dx, saved, weight, bias, dweight, dbias)]
            compiled.batch_norm_backward(ctypes.byref(plan), *pointers)
            assert guarded.margins_are_whole()
    assert dx.abs().sum() > 0


@pytest.mark.parametrize("dtype", list(library.STORED), ids=str)
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_no_kernel_with_a_residual_writes_beyond_its_buffers(shape, rows, dtype):
    if reason := library.why_not(dtype):
        pytest.skip(reason)
    compiled, real = library.load(dtype), real_type(dtype)
    guarded, channels = Guarded(), shape[1]
    x, residual, y, dy, dx, dz = (guarded(torch.randn(shape).to(dtype)) for _ in range(6))
    saved = guarded(torch.zeros(2 * channels, dtype=torch.float64))
    weight, bias, mean, var, dweight, dbias = (guarded(torch.ones(channels, dtype=real)) for _ in range(6))
    for training, activation, threads in ((True, 2, 1), (True, 1, 2), (False, 1, 1), (False, 2, 2), (True, 0, 2)):
        given = [t.clone() for t in (x, residual, dy)]
        plan = kernel_calls.Plan(*shape, rows, False, activation, training, threads)
        pointers = [t.data_ptr() for t in (x, residual, y, saved, weight, bias, mean, var)]
        compiled.residual_forward(ctypes.byref(plan), *pointers, 0.1, 1e-5)
        if activation:
            output = y.clone()
            pointers = [t.data_ptr() for t in (x, dy, y, dx, dz, saved, weight, bias, dweight, dbias)]
            compiled.residual_backward(ctypes.byref(plan), *pointers)
            assert torch.equal(y, output)
        assert guarded.margins_are_whole()
        assert all(map(torch.equal, (x, residual, dy), given))
    assert dz.abs().sum() > 0


# --- Sanitizers ------------------------------------------------------------------------------------------------------

SANITIZED = """
    import itertools
    import torch, kernels
    from kernels.agreement import Exam, worst
    from kernels.attempts import attempt
    from kernels.problems import make_problem
    from kernels.cpu_fused import NODE, kernel_calls
    from tests.pairs import pairs

    NODE.begin = lambda: None  # torch's headers under sanitizers take a compiler a minute
    kernel_calls.ELEMENTS_PER_THREAD = 1
    torch.set_num_threads(3)
    fused = kernels.load("cpu_fused")
    assert not fused.why_unavailable(torch.device("cpu")), fused.why_unavailable(torch.device("cpu"))

    # Every shape on every way through the C++, with each activation and each kind of value in turn.
    cases = pairs(
        shape=[(2, 3, 2, 2), (9, 4, 2, 3), (3, 2, 9, 14), (2, 3, 15, 17), (12, 5, 24, 24), (1, 2, 70, 66),
               (3, 40, 5, 8), (33, 21), (5, 80), (300, 7), (0, 3, 4, 4), (9, 6, 7, 11),
               (7, 260)],
        way=list(itertools.product(
            (torch.float32, torch.bfloat16), (True, False), (None, 2), (torch.contiguous_format, torch.channels_last)
        )),
        activation=[None, "sigmoid", "relu"],
        residual=[False, True],
        value=[0.5, float("nan"), float("inf"), -1e38],
    )
    for case in cases:
        shape, (dtype, training, pool, layout) = case["shape"], case["way"]
        pool = pool if len(shape) == 4 else None
        options = {name: case[name] for name in ("activation", "residual")}
        problem = make_problem(shape, pool=pool, training=training, dtype=dtype, **options)
        if problem.input.numel():
            problem.input.view(-1)[-2] = case["value"]
        if len(shape) == 4:
            problem.input.data = problem.input.contiguous(memory_format=layout)
        if case["value"] == 0.5 and problem.input.numel():
            assert worst(Exam(problem).mark(fused)) is None, case
        else:
            attempt(fused, problem)
    print("clean", flush=True)

    # And this is how it looks when they find something: a call for more images than there are.
    small, large = torch.Size((2, 3, 6, 8)), torch.Size((4, 3, 6, 8))
    plan = kernel_calls.plan_of
    kernel_calls.plan_of = lambda shape, *rest: plan(large, *rest)
    kernel_calls.forward(torch.randn(small), (None,) * 3, (None,) * 2, (True, None, False), 0.1, 1e-5)
"""


@pytest.fixture
def sanitizers(tmp_path):
    """The environment of a process in which the kernels, and all memory that torch takes, are watched."""
    command = " ".join(compilation.compiler())
    # The C++ library too: what throws is looked for in what is there first.
    wanted = ("libasan.so", "libubsan.so", "libstdc++.so.6")
    libraries = [
        subprocess.run([*command.split(), f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in wanted
    ]
    if not all(os.sep in library for library in libraries):
        pytest.skip("this compiler has no sanitizers")
    compiler = tmp_path / "compiler"
    # The last -O counts: the accesses of the source are all there, and it compiles in a third of the time of -O1. With
    # caches for one number, all stores that may pass the caches do.
    caches = "-UCACHE_BYTES -DCACHE_BYTES=1 -UCACHE_PROCESSORS -DCACHE_PROCESSORS=1"
    flags = f"-O0 {caches} -fsanitize=address,undefined -fno-sanitize-recover=all"
    compiler.write_text(f'#!/bin/sh\nexec {command} "$@" {flags}\n')
    compiler.chmod(compiler.stat().st_mode | stat.S_IXUSR)
    return {
        "CXX": str(compiler),
        "BNBENCH_CACHE": str(tmp_path),
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="preloads what Linux has")
def test_address_and_undefined_behavior_sanitizers_find_what_is_planted_and_nothing_else(sanitizers):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SANITIZED)],
        cwd=ROOT,
        env=os.environ | sanitizers,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.stdout == "clean\n", done.stderr
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr

"""What `cpu_fused` alone promises: every size and thread count, its operators, its memory, and its compilation."""

import ctypes
import os
import re
import shutil
import stat
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import kernels
from kernels import agreement
from kernels.agreement import Exam, attempt, make_problem
from kernels.cpu_fused import OPERATORS, kernel_calls, library
from kernels.fused.layouts import real_type
from tests.kernels.conformance import assert_conforms

CPU = torch.device("cpu")
ROOT = Path(__file__).parents[2]
IMPLEMENTATION = kernels.load("cpu_fused")
pytestmark = pytest.mark.skipif(
    bool(IMPLEMENTATION.why_unavailable(CPU)), reason=str(IMPLEMENTATION.why_unavailable(CPU))
)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks at what Linux has")

POOLED = {"activation": "sigmoid", "pool": 2}
LAST = {"memory_format": torch.channels_last}


@pytest.fixture(params=[1, 2, 3])
def threads(request, monkeypatch):
    """So many threads, however little there is to do."""
    before = torch.get_num_threads()
    monkeypatch.setattr(kernel_calls, "ELEMENTS_PER_THREAD", 1)
    kernel_calls.plan_of.cache_clear()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
    kernel_calls.plan_of.cache_clear()


def worst_error(problem):
    return max(deviation.error for deviation in Exam(problem).mark(IMPLEMENTATION))


def run(code, **environment):
    """A process of its own that runs `code`; what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=ROOT,
        env=os.environ | {k: str(v) for k, v in environment.items()},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- Sizes, threads, digits ------------------------------------------------------------------------------------------

SIZES = [
    (2, 3, 2, 2), (9, 4, 2, 3), (3, 2, 9, 14), (2, 3, 15, 17), (5, 2, 3, 31), (12, 5, 24, 24), (1, 2, 70, 66),
    (2, 1, 3, 5000), (3, 40, 5, 8), (1, 9, 8, 8),
]  # fmt: skip


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["planes", "rows"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_every_size_and_number_of_threads_agrees_with_the_reference(shape, training, layout):
    for pool in (2, None):
        problem = make_problem(shape, training=training, pool=pool)
        moved = {name: getattr(problem, name).contiguous(memory_format=layout) for name in ("input", "grad_output")}
        for activation in (None, "sigmoid", "relu"):
            assert_conforms(IMPLEMENTATION, replace(problem, **moved, activation=activation))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 15, 17), (12, 5, 8, 8), (33, 21)], ids=str)
def test_every_type_and_number_of_threads_agrees_with_the_reference(shape, dtype):
    block = POOLED if len(shape) == 4 else {"activation": "sigmoid"}
    assert_conforms(IMPLEMENTATION, make_problem(shape, dtype=dtype, **block))


@pytest.mark.parametrize("mean", [1e4, 1e5, 1e6])
@pytest.mark.parametrize("shape", [(64, 6, 24, 24), (64, 16, 8, 8), (256, 120), (8, 3, 56, 56)], ids=str)
def test_the_error_stays_below_a_millionth_when_the_mean_is_a_million_times_std(shape, mean):
    block = POOLED if len(shape) == 4 else {"activation": "sigmoid"}
    assert worst_error(make_problem(shape, mean=mean, std=1.0)) <= 1e-6
    assert worst_error(make_problem(shape, mean=mean, std=1.0, **block)) <= 1e-6


DRIFTS = {
    "a slope": lambda x: x + torch.arange(x.shape[0]).view(-1, *[1] * (x.dim() - 1)) * 1e3,
    "a step": lambda x: torch.cat([x[: len(x) // 2], x[len(x) // 2 :] + 1e5]),
    "huge": lambda x: x * 1e18,
    "tiny": lambda x: x * 1e-18,
}


def aten_in_float64(x, running_mean, running_var, weight, bias, *rest):
    wide = [tensor.double() for tensor in (x, running_mean, running_var, weight, bias)]
    y = F.batch_norm(*wide, *rest).to(x.dtype)
    running_mean.copy_(wide[1])
    running_var.copy_(wide[2])
    return y


@pytest.mark.parametrize("drift", DRIFTS)
@pytest.mark.parametrize("shape", [(64, 3, 24, 24), (64, 5, 8, 8), (1024, 20)], ids=str)
def test_a_bad_first_guess_of_the_mean_costs_no_digits(shape, drift, monkeypatch):
    """The mean so far is the guess for what comes next: here it is far off, or its squares leave float's range."""
    problem = make_problem(shape)
    problem = replace(problem, input=DRIFTS[drift](problem.input).contiguous(), eps=1e-60 if drift == "tiny" else 1e-5)
    # The squares of "huge" leave the range of ATen's float32: no exam would be judged by its answer.
    monkeypatch.setattr(agreement, "BUILTIN", replace(agreement.BUILTIN, batch_norm=aten_in_float64))
    assert worst_error(problem) <= 2e-6


@pytest.mark.usefixtures("threads")
def test_saturated_sigmoids_are_exact_and_finite():
    x = torch.tensor([-1e30, -200.0, -90.0, -30.0, 0.0, 30.0, 90.0, 200.0, 1e30]).repeat(16, 1).requires_grad_()
    zero, one = torch.zeros(9), torch.ones(9)
    y = IMPLEMENTATION.block(x, zero, one, eps=0.0, activation="sigmoid")
    torch.testing.assert_close(y, torch.sigmoid(x), rtol=2e-6, atol=1e-37)
    (dx,) = torch.autograd.grad(y.sum(), x)
    z = x.detach().double()
    torch.testing.assert_close(dx.double(), torch.sigmoid(z) * torch.sigmoid(-z), rtol=2e-6, atol=1e-37)


def test_the_thread_count_of_torch_holds(threads):
    plan = kernel_calls.plan_of(torch.Size((64, 6, 24, 24)), True, False, None, True, torch.get_num_threads())
    assert plan._obj.threads == threads
    problem = make_problem((64, 6, 24, 24))
    first, second = attempt(IMPLEMENTATION, problem), attempt(IMPLEMENTATION, problem)
    assert all(torch.equal(first[quantity], second[quantity]) for quantity in first)


def test_a_small_tensor_takes_one_thread():
    assert kernel_calls.plan_of(torch.Size((8, 3, 5, 5)), True, False, None, True, 4)._obj.threads == 1


@linux_only
def test_there_is_one_openmp_runtime():
    maps = run("""
        import torch, kernels
        assert kernels.load("cpu_fused").why_unavailable(torch.device("cpu")) is None
        print(open("/proc/self/maps").read())
    """)
    libraries = {line.split()[-1] for line in maps.splitlines() if "libgomp" in line or "libomp" in line}
    assert len(libraries) == 1, libraries


# --- Operators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [lambda x: x, lambda x: x.contiguous(**LAST)], ids=["planes", "rows"])
def test_the_operators_pass_torchs_own_check(layout):
    p = make_problem((4, 3, 6, 8), **POOLED)
    x, counter, constants = layout(p.input), torch.tensor(3), (True, 0.1, 1e-5, "sigmoid", True)
    arguments = (x, p.running_mean, p.running_var, counter, p.weight, p.bias, *constants)
    torch.library.opcheck(OPERATORS.forward, arguments)
    _, saved = OPERATORS.forward(*arguments)
    torch.library.opcheck(
        OPERATORS.backward, (layout(p.grad_output), x, saved, p.weight, p.bias, True, "sigmoid", True)
    )


def test_a_type_without_kernels_takes_torchs_way_and_the_record_says_so(monkeypatch):
    monkeypatch.setattr(library, "why_not", lambda dtype: "no half here" if dtype == torch.float16 else None)
    problem = make_problem((4, 3, 6, 8), dtype=torch.float16, **POOLED)
    assert_conforms(IMPLEMENTATION, problem)
    assert IMPLEMENTATION.backend(problem.input, True) == "F.batch_norm: no kernels for float16"
    assert "F.batch_norm" not in IMPLEMENTATION.backend(problem.input.float(), True)


def test_other_devices_are_refused_but_for_meta_which_has_no_numbers():
    x = torch.ones(4, 3, device="meta")
    assert IMPLEMENTATION.batch_norm(x, None, None, training=True).is_meta
    with pytest.raises(RuntimeError, match="the input is on meta"):
        kernel_calls.forward(x, (None,) * 3, (None,) * 2, (True, None, False), 0.1, 1e-5)
    assert "CPU" in IMPLEMENTATION.why_unavailable(torch.device("cuda"))


# --- Memory ----------------------------------------------------------------------------------------------------------

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
    ("shape", "pool"), [((12, 21, 1, 1), False), *((shape, pool) for shape in SIZES for pool in (False, True))], ids=str
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


SANITIZED = """
    import dataclasses
    import torch, kernels
    from kernels.agreement import make_problem, attempt
    from kernels.cpu_fused import kernel_calls
    kernel_calls.ELEMENTS_PER_THREAD = 1
    torch.set_num_threads(2)
    fused = kernels.load("cpu_fused")
    assert not fused.why_unavailable(torch.device("cpu")), fused.why_unavailable(torch.device("cpu"))
    shapes = [(2, 3, 2, 2), (9, 4, 2, 3), (3, 2, 9, 14), (2, 3, 15, 17), (12, 5, 24, 24), (1, 2, 70, 66), (3, 40, 5, 8)]
    for dtype in (torch.float32, torch.bfloat16):
        for shape in [*shapes, (33, 21), (300, 7)]:
            for training in (True, False):
                for activation in (None, "sigmoid", "relu"):
                    for pool in (None, 2) if len(shape) == 4 else (None,):
                        options = {"activation": activation, "pool": pool, "training": training, "dtype": dtype}
                        problem = make_problem(shape, **options)
                        attempt(fused, problem)
                        if len(shape) == 4:
                            for value in (float("nan"), float("inf"), -1e38):
                                problem.input[0, 0, 1, 1] = value
                                attempt(fused, problem)
                            rows = problem.input.contiguous(memory_format=torch.channels_last)
                            attempt(fused, dataclasses.replace(problem, input=rows))
    print("clean")
"""


@pytest.fixture
def sanitizers(tmp_path):
    """The environment of a process in which the kernels, and all memory that torch takes, are watched."""
    command = library.compiler()
    # The C++ library too: what throws is looked for in what is there first.
    wanted = ("libasan.so", "libubsan.so", "libstdc++.so.6")
    found = [subprocess.run([*command, f"-print-file-name={name}"], capture_output=True, text=True) for name in wanted]
    libraries = [done.stdout.strip() for done in found]
    if not all(os.sep in library for library in libraries):
        pytest.skip("this compiler has no sanitizers")
    return {
        "CXX": " ".join([*command, "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]),
        "BNBENCH_CACHE": tmp_path,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONMALLOC": "malloc",
    }


@linux_only
def test_address_and_undefined_behaviour_sanitizers_find_nothing(sanitizers):
    assert run(SANITIZED, **sanitizers).split() == ["clean"]
    # And this is how it looks when they do.
    with pytest.raises(AssertionError, match="AddressSanitizer: heap-buffer-overflow"):
        run(
            """
            import torch
            from kernels.cpu_fused import kernel_calls
            small, large = torch.Size((2, 3, 6, 8)), torch.Size((4, 3, 6, 8))
            plan = kernel_calls.plan_of
            kernel_calls.plan_of = lambda shape, *rest: plan(large, *rest)
            kernel_calls.forward(torch.randn(small), (None,) * 3, (None,) * 2, (True, None, False), 0.1, 1e-5)
            """,
            **sanitizers,
        )


# --- Compilation -----------------------------------------------------------------------------------------------------

SAY_WHY = """
    import torch, kernels
    print(kernels.load("cpu_fused").why_unavailable(torch.device("cpu")))
"""


def compiler_that(tmp_path, script):
    path = tmp_path / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_a_compiler_that_is_not_there_is_named(tmp_path):
    told = run(SAY_WHY, CXX="/nonexistent", BNBENCH_CACHE=tmp_path)
    assert told.strip() == "no C++ compiler: CXX is '/nonexistent', which is no program here"


@linux_only
@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo 'rows.h:1:2: fatal error: out of luck' >&2; exit 3",
            "exit code 3: rows.h:1:2: fatal error",
        ),
        ("exit 1", "it says nothing"),
        ("exit 0", "it says nothing"),
        ('for last in "$@"; do :; done; echo nonsense > "$last"', "file too short"),
    ],
    ids=["its error", "silent", "makes nothing", "makes nonsense"],
)
def test_a_compiler_that_fails_is_quoted_in_one_line(tmp_path, script, words):
    told = run(SAY_WHY, CXX=compiler_that(tmp_path, script), BNBENCH_CACHE=tmp_path)
    assert len(told.splitlines()) == 1
    assert words in told
    assert not list(tmp_path.glob("kernels/tmp*")), "what a failed compiler left"


@linux_only
def test_optional_flags_that_a_compiler_does_not_know_are_left_out(tmp_path):
    real = " ".join(library.compiler())
    script = f'case "$*" in *openmp*|*native*) echo "error: unknown flag" >&2; exit 1;; esac; exec {real} "$@"'
    told = run(
        """
        import torch, kernels
        from kernels.agreement import make_problem
        from tests.kernels.conformance import assert_conforms
        fused = kernels.load("cpu_fused")
        assert_conforms(fused, make_problem((64, 6, 24, 24), activation="sigmoid", pool=2))
        print(fused.backend(torch.zeros(2, 2), True))
        """,
        CXX=compiler_that(tmp_path, script),
        BNBENCH_CACHE=tmp_path,
    )
    assert "one thread: no OpenMP" in told


def test_an_unwritable_cache_is_done_without(tmp_path):
    (tmp_path / "a file").write_text("")
    assert run(SAY_WHY, BNBENCH_CACHE=tmp_path / "a file" / "cache").strip() == "None"


def test_the_second_process_compiles_nothing_and_a_damaged_library_is_made_again(tmp_path):
    assert run(SAY_WHY, BNBENCH_CACHE=tmp_path).strip() == "None"
    (library,) = tmp_path.glob("kernels/*.so")
    made = library.stat().st_mtime_ns
    assert run(SAY_WHY, BNBENCH_CACHE=tmp_path).strip() == "None"
    assert library.stat().st_mtime_ns == made
    library.write_text("nonsense")
    assert run(SAY_WHY, BNBENCH_CACHE=tmp_path).strip() == "None"
    assert library.stat().st_mtime_ns != made


@pytest.mark.parametrize("name", [path.name for path in library.sources()])
def test_a_change_of_any_source_is_compiled_anew(name, tmp_path, monkeypatch):
    kept = library._source_digest()
    copy = shutil.copytree(library.SOURCES, tmp_path / "cpp")
    monkeypatch.setattr(library, "SOURCES", copy)
    assert library._source_digest() == kept
    (copy / name).write_text((copy / name).read_text("utf-8") + "// changed\n")
    assert library._source_digest() != kept


def test_every_include_is_among_the_sources():
    names = {path.name for path in library.sources()}
    included = {name for path in library.sources() for name in re.findall(r'#include "(.*)"', path.read_text("utf-8"))}
    assert included | {library.MAIN} == names


def test_processes_that_compile_at_once_do_not_collide(tmp_path):
    environment = os.environ | {"BNBENCH_CACHE": str(tmp_path)}
    code = textwrap.dedent(SAY_WHY)
    several = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=300)[0].strip() for process in several] == ["None"] * 3
    assert len(list(tmp_path.glob("kernels/*"))) == 1


# --- All of the suite, on several threads ----------------------------------------------------------------------------


def test_conformance_does_not_depend_on_the_number_of_threads():
    """This process tests with one thread or with several; another one does the other."""
    threads = 2 if torch.get_num_threads() == 1 else 1
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/kernels", "-q", "-p", "no:cacheprovider", "-k", "cpu_fused-cpu"],
        cwd=ROOT,
        env=os.environ | {"BNBENCH_TEST_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


def test_planes_and_rows_have_the_same_answer():
    x = torch.randn(8, 6, 12, 12)
    planes = IMPLEMENTATION.block(x, None, None, training=True, **POOLED)
    rows = IMPLEMENTATION.block(x.contiguous(**LAST), None, None, training=True, **POOLED)
    torch.testing.assert_close(planes, rows, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(planes, F.max_pool2d(torch.sigmoid(F.batch_norm(x, None, None, training=True)), 2))

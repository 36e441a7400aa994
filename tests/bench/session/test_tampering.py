"""Clocks and torch's own functions: replaced ones are put back, and whoever did it is told."""

import ctypes
import os
import subprocess
import sys
import time

import pytest
import torch
from torch.nn import functional as F

from bench.record.records import OK, WRONG
from bench.session import settings, tampering
from bench.session.candidate import Candidate
from bench.session.gate import Gate
from bench.session.roster import candidates
from tests.kernels import dishonest

pytestmark = pytest.mark.usefixtures("as_it_is_now")

CPU = torch.device("cpu")


def affinity():
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()


REPLACING = """
{statement}
from torch.nn import functional as F
def batch_norm(*arguments, **settings):
    return F.batch_norm(*arguments, **settings)
"""


def test_nothing_is_replaced_in_this_process():
    assert tampering.undo() is None


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("import time; time.perf_counter = lambda: 0.0", "time.perf_counter"),
        ("import time; time.perf_counter_ns = lambda: 0", "time.perf_counter_ns"),
        ("import json; json.dumps = lambda *_, **__: '{{}}'", "json.dumps"),
        ("import torch; torch.cuda.synchronize = lambda *_: None", "torch.cuda.synchronize"),
        ("import torch; torch.cuda.Event.elapsed_time = lambda *_: 0.001", "torch.cuda.streams.Event.elapsed_time"),
        ("import torch.nn.functional as f; f.batch_norm = lambda x, *_, **__: x", "torch.nn.functional.batch_norm"),
        ("from bench.measure import timing; timing.timed = lambda run, _: (1, run())", "bench.measure.timing.timed"),
        (
            "from bench.measure import timing; timing.timed.__code__ = (lambda run, device: (1, run())).__code__",
            "bench.measure.timing.timed",
        ),
        (
            "from bench.measure.subjects import Workload; Workload.seal = lambda *_: None",
            "bench.measure.subjects.Workload.seal",
        ),
        ("import torch; import torch.nn.functional as f; f.__dict__['torch'] = object()", "torch.nn.functional.torch"),
        ("import torch; torch.nn.Module.__call__ = lambda self, x: x", "torch.nn.modules.module.Module.__call__"),
        ("import torch.nn.functional as f; f.batch_norm.__defaults__ = (None,) * 6", "torch.nn.functional.batch_norm"),
        (
            "import torch.nn.functional as f; f.max_pool2d.__closure__[-1].cell_contents = lambda *_, **__: None",
            "torch.nn.functional.max_pool2d",
        ),
        (
            "import torch.backends.cudnn as cudnn; type(cudnn).enabled = property(lambda _: True)",
            "torch.backends.cudnn.CudnnModule.enabled",
        ),
        ("from bench.measure import floor; floor.time = None", "bench.measure.floor.time"),
        (
            "from bench.measure import timing; timing.perf_counter_ns = lambda: 0",
            "bench.measure.timing.perf_counter_ns",
        ),
        ("from bench.measure import latency; latency.LEAST_OF_A_COPY = 0.0", "bench.measure.latency.LEAST_OF_A_COPY"),
        (
            "from kernels import contract; contract.ACTIVATIONS['sigmoid'] = lambda x: x",
            "kernels.contract.ACTIVATIONS['sigmoid']",
        ),
        (
            "from kernels import builtin; builtin.IMPLEMENTATION.__dict__['batch_norm'] = lambda x, *_, **__: x",
            "kernels.builtin.IMPLEMENTATION.batch_norm",
        ),
        (
            "from kernels import registry; registry._registered()['builtin'].__dict__['batch_norm'] = lambda *_: None",
            "kernels.builtin.IMPLEMENTATION.batch_norm",
        ),
    ],
)
def test_a_file_that_replaces_what_measurements_stand_on_is_wrong(tmp_path, statement, named):
    originals = time.perf_counter, time.perf_counter_ns, torch.cuda.synchronize, F.batch_norm
    file = tmp_path / "replaces.py"
    file.write_text(REPLACING.format(statement=statement))
    found = {c.label: c for c in candidates([f"{file}:batch_norm", "naive"], CPU)}
    assert (found["replaces.py:batch_norm"].status, found["replaces.py:batch_norm"].unavailable) == (
        WRONG,
        f"wrong: replaces {named}",
    )
    assert [found[name].status for name in ("naive", "builtin")] == [OK, OK]
    assert originals == (time.perf_counter, time.perf_counter_ns, torch.cuda.synchronize, F.batch_norm)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("torch.set_num_threads(torch.get_num_threads() + 1)", "the number of threads"),
        ("torch.set_float32_matmul_precision('medium')", "float32 precision"),
        ("torch.backends.cuda.matmul.allow_tf32 = True", "float32 precision"),
        ("torch.backends.cuda.matmul.fp32_precision = 'tf32'", "float32 precision"),
        ("torch.backends.cudnn.allow_tf32 = False", "float32 precision"),
        ("torch.backends.cudnn.conv.fp32_precision = 'ieee'", "float32 precision"),
        ("torch.backends.fp32_precision = 'tf32'", "float32 precision"),
        (
            "torch.backends.cudnn.rnn.fp32_precision = 'ieee'; torch.set_float32_matmul_precision('high')",
            "float32 precision",
        ),
        ("torch.backends.cudnn.benchmark = True", "cuDNN's benchmark mode"),
        ("torch.set_grad_enabled(False)", "whether gradients are on"),
        ("torch.autograd.set_detect_anomaly(True)", "anomaly detection"),
        ("torch.set_flush_denormal(True)", "denormal numbers"),
        ("torch.set_autocast_enabled('cpu', True)", "autocasting"),
        ("torch.overrides.BaseTorchFunctionMode().__enter__()", "the modes of torch that are on"),
        ("torch.autograd.graph.save_on_cpu().__enter__()", "hooks that everybody's calls pass"),
        ("torch.autograd.profiler.profile().__enter__()", "hooks that everybody's calls pass"),
        pytest.param(
            "import sys; sys.monitoring.use_tool_id(4, 'x'); sys.monitoring.set_events(4, 1)",
            "hooks that everybody's calls pass",
            marks=pytest.mark.skipif(sys.version_info < (3, 12), reason="since Python 3.12"),
        ),
        ("import gc; gc.set_threshold(1, 1, 1)", "garbage collection"),
        ("import sys; sys.setswitchinterval(1e-6)", "Python's switch interval"),
        pytest.param(
            "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})",
            "the affinity",
            marks=pytest.mark.skipif(len(affinity()) < 2, reason="needs two cores"),
        ),
    ],
)
def test_a_file_that_changes_torch_for_everybody_is_wrong(tmp_path, statement, named):
    before = [get() for get, _ in tampering.SETTINGS.values()]
    file = tmp_path / "sets.py"
    file.write_text(REPLACING.format(statement=f"import torch; {statement}"))
    found = {c.label: c for c in candidates([f"{file}:batch_norm"], CPU)}["sets.py:batch_norm"]
    assert (found.status, found.unavailable) == (WRONG, f"wrong: changes {named}")
    assert before == [get() for get, _ in tampering.SETTINGS.values()]


@pytest.mark.skipif(not settings.OWN_TIMERS.exists(), reason="needs Linux's list of timers")
def test_a_timer_that_python_knows_nothing_of_is_seen():
    library, timer = ctypes.CDLL(None), ctypes.c_void_p()
    read, _ = settings.INTERRUPTIONS["signal handlers or timers"]
    before = read()
    assert library.timer_create(time.CLOCK_MONOTONIC, None, ctypes.byref(timer)) == 0
    while_it_is_there = read()
    library.timer_delete(timer)
    assert while_it_is_there != before == read()


def test_who_replaces_a_clock_in_a_call_is_wrong_too():
    original = time.perf_counter

    def patient(*arguments, **settings):
        time.perf_counter = lambda: 0.0
        return F.batch_norm(*arguments, **settings)

    assert Gate(CPU).failed_duty(Candidate("x", dishonest.plug_in(patient))) == "wrong: replaces time.perf_counter"
    assert time.perf_counter is original


KERNEL = """
import torch
from bench.session import tampering
library = torch.library.Library("aten", "IMPL")
library.impl("native_batch_norm", lambda *_: None, "CPU")
print(tampering.undo())
"""


def test_another_kernel_behind_one_of_torchs_operators_is_named():
    # In a process of its own, since nothing takes such a kernel back.
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", KERNEL], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "wrong: replaces aten::native_batch_norm"


def test_what_torchs_compiler_and_profiler_add_when_they_are_first_used_is_nobodys_doing():
    x = torch.randn(4, 3, requires_grad=True)
    with torch.profiler.profile():
        torch.compile(lambda x: F.batch_norm(torch.sigmoid(x), None, None, training=True))(x).sum().backward()
    torch.set_default_dtype(torch.get_default_dtype())
    torch.export.export(torch.nn.ReLU(), (x,))
    assert tampering.undo() is None

"""The page about Triton kernels: what is counted in the interpreter, and what the compiler makes of the kernels."""

import csv
from types import SimpleNamespace

import pytest
import torch

import kernels
from bench import kernel_report
from bench.record.operations import RESIDUAL, RESNET_SHAPES, Operation
from bench.triton import kernel_compile, kernel_tables
from bench.triton.interpreter import Launch, Pointer, watch
from bench.triton.kernel_compile import TARGETS, Target, compile_launch
from bench.triton.kernel_launches import CHANNELS_LAST, CONTIGUOUS, Reply, Request, laid_out, observe, passes
from kernels.triton_fused import interpreted
from tests.copies import through_pickle
from tests.processes import start

pytestmark = pytest.mark.skipif(not interpreted(), reason="needs Triton's interpreter: TRITON_INTERPRET=1, no GPU")

MY_BN = """
import torch
import triton
import triton.language as tl

@triton.jit
def twice(x_ptr, y_ptr, n, SIZE: tl.constexpr):
    place = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    x = tl.load(x_ptr + place, mask=place < n)
    tl.store(y_ptr + place, 2 * x, mask=place < n)

def batch_norm(input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    y = torch.zeros_like(input) + 0 * input
    twice[(triton.cdiv(input.numel(), 128),)](input, y, input.numel(), SIZE=128, num_warps=2)
    return torch.nn.functional.batch_norm(y, running_mean, running_var, weight, bias, training, momentum, eps)
"""
SMALL = Target("small", "cuda", 90, 8, 64, 65536, 1 << 16, 32, multiprocessors=4)


@pytest.fixture(autouse=True)
def division(monkeypatch):
    """Restored after each test."""
    from kernels.triton_fused import plan

    monkeypatch.setattr(plan, "INTERPRETED", plan.INTERPRETED)


@pytest.fixture
def my_bn(tmp_path):
    path = tmp_path / "my_bn.py"
    path.write_text(MY_BN)
    return path


def run(tmp_path, *options):
    """The command, as a user runs it: its exit code, and what it prints."""
    command = ["-m", "bench.kernel_report", "--results-dir", str(tmp_path / "out"), *options]
    return start(*command, TRITON_INTERPRET="0").wait()


@pytest.fixture(scope="module")
def lenet(tmp_path_factory):
    """LeNet's kernels, compiled for one GPU of each vendor."""
    folder = tmp_path_factory.mktemp("kernels")
    code, printed = run(folder, "--shapes", "lenet", "--no-count", "--targets", "sm_90", "gfx942")
    assert code == 0, printed
    return list(csv.DictReader((folder / "out" / "kernels.csv").read_text().splitlines()))


def test_no_kernel_of_lenet_spills(lenet):
    assert {row["target"] for row in lenet} == {"sm_90", "gfx942"}
    assert [row for row in lenet if row["spilled"] != "0"] == []
    assert max(int(row["registers"]) for row in lenet) <= 128


def test_the_batch_is_loaded_by_128_bits(lenet):
    for row in lenet:
        widest = max(int(pair.split(":")[0]) for pair in row["loads_by_bits"].split())
        assert widest == 128, row


def test_one_launch_each_way_where_a_program_holds_its_channels(lenet):
    def launched(shape, pass_name):
        return [
            r["kernel"]
            for r in lenet
            if (r["shape"], r["operation"], r["pass"], r["target"]) == (shape, "block", pass_name, "sm_90")
        ]

    assert launched("256x6x24x24", "training forward") == ["statistics", "apply"]
    assert launched("256x6x24x24", "training backward") == ["backward_sums", "backward"]
    for shape in ("256x16x8x8", "256x120", "256x84"):
        assert launched(shape, "training forward") == ["forward_resident"]
        assert launched(shape, "training backward") == ["backward_resident"]
        assert launched(shape, "inference") == ["apply"]


@pytest.mark.parametrize(
    ("shape", "resident_bytes", "most"),
    [((8, 3, 24, 24), 1024, 23.5), ((8, 2, 8, 8), 65536, 14.5)],
    ids=["split", "resident"],
)
def test_bytes_per_element_of_a_pooled_block_are_counted(monkeypatch, shape, resident_bytes, most):
    from kernels.triton_fused import plan

    monkeypatch.setattr(plan, "RESIDENT_BYTES", resident_bytes)
    monkeypatch.setattr(plan, "INTERPRETED", plan.Machine(4, 8))
    operation = Operation(shape, "block")
    seen = passes(kernels.load("triton_fused"), laid_out(operation, CONTIGUOUS), measure=True)
    moved = sum(
        launch.bytes_moved for pass_name in ("training forward", "training backward") for launch in seen[pass_name]
    )
    elements = torch.Size(shape).numel()
    assert operation.bytes_moved("both", 4) / elements < moved / elements <= most


@pytest.mark.parametrize(
    ("resident_bytes", "numbers", "launched"), [(1024, 11, (2, 2)), (65536, 8, (1, 1))], ids=["split", "resident"]
)
@pytest.mark.parametrize("layout", [CONTIGUOUS, CHANNELS_LAST])
def test_launches_and_bytes_of_a_residual_block_are_counted(monkeypatch, layout, resident_bytes, numbers, launched):
    from kernels.triton_fused import plan

    monkeypatch.setattr(plan, "RESIDENT_BYTES", resident_bytes)
    monkeypatch.setattr(plan, "INTERPRETED", plan.Machine(4, 8))
    operation = Operation((8, 8, 12, 12), RESIDUAL)
    seen = passes(kernels.load("triton_fused"), laid_out(operation, layout), measure=True)
    both = [seen["training forward"], seen["training backward"]]
    assert tuple(map(len, both)) == launched
    moved = sum(launch.bytes_moved for launches in both for launch in launches)
    elements = torch.Size(operation.shape).numel()
    assert 4 * numbers <= moved / elements < 4 * numbers + 1.5  # numbers of channels, and parts of sums


def test_what_separate_operations_move_is_added_up():
    moved = [kernel_tables.eager_bytes(Operation((2, 3, 6, 8), kind)) for kind in ("norm", "block", RESIDUAL)]
    assert moved == [32, 66, 64]
    assert kernel_tables.eager_bytes(Operation((4, 5), "block")) == 52


def test_residual_blocks_are_on_the_page_in_both_layouts():
    found = [(operation.shape, layout) for operation, layout in kernel_report.cells("all") if operation.residual]
    assert found == [(shape, layout) for shape in RESNET_SHAPES for layout in (CONTIGUOUS, CHANNELS_LAST)]
    assert not any(operation.residual for operation, _ in kernel_report.cells("lenet"))


def test_what_a_kernel_moves_is_counted_by_argument(my_bn):
    implementation = kernels.load(str(my_bn))
    with watch() as seen:
        implementation.batch_norm(torch.randn(20, 10), None, None, training=True)
    (launch,) = seen
    assert (launch.kernel, launch.grid, launch.options) == ("twice", (2,), {"num_warps": 2})
    assert launch.loaded == {"x_ptr": 800}
    assert launch.stored == {"y_ptr": 800}
    assert launch.arguments["x_ptr"].dtype == torch.float32
    assert (launch.arguments["n"], launch.arguments["SIZE"], launch.constants) == (200, 128, ("SIZE",))


def test_a_launch_is_compiled_with_the_options_that_it_has(monkeypatch):
    implementation, asked = kernels.load("triton_fused"), []
    with watch(measure=False) as seen:
        implementation.batch_norm(torch.randn(20, 10), None, None, training=True)
    made = SimpleNamespace(metadata=SimpleNamespace(num_warps=4, shared=0))
    read = dict.fromkeys(("spilled", "loads", "stores", "barriers", "code_bytes"))
    monkeypatch.setattr(kernel_compile, "_source", lambda _: None)
    monkeypatch.setattr(kernel_compile, "_read_nvidia", lambda _: {"registers": 32, **read})
    monkeypatch.setattr("triton.compile", lambda *_, options, **__: asked.append(options) or made)
    compile_launch(seen[0], SMALL)
    assert asked == [{"num_warps": 4, "enable_fp_fusion": True}]


def test_launches_can_be_written_down_without_running(my_bn):
    implementation = kernels.load(str(my_bn))
    with watch(measure=False) as seen:
        implementation.batch_norm(torch.randn(20, 10), None, None, training=True)
    assert [launch.kernel for launch in seen] == ["twice"]
    assert seen[0].bytes_moved == 0


def test_anyones_kernels_are_on_the_page_and_who_has_none_is_named(my_bn, tmp_path):
    both = ("--impl", str(my_bn), "--impl", "naive")
    code, printed = run(tmp_path, *both, "--shapes", "lenet", "--no-count", "--targets", "sm_80")
    assert code == kernel_report.FAILED
    assert "naive: launches no Triton kernel" in printed
    rows = list(csv.DictReader((tmp_path / "out" / "kernels.csv").read_text().splitlines()))
    assert {(row["implementation"], row["kernel"], row["warps"], row["target"]) for row in rows} == {
        ("my_bn.py", "twice", "2", "sm_80")
    }
    page = (tmp_path / "out" / "kernels.md").read_text()
    assert "twice" in page
    assert "- `naive`: **launches no Triton kernel**" in page


def test_bad_options_are_one_line(monkeypatch, capsys):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert kernel_report.main(["--impl", "nobody"]) == kernel_report.BAD_INPUT
    assert "nobody" in capsys.readouterr().err
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert kernel_report.main([]) == kernel_report.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    assert "TRITON_INTERPRET" in line


def test_a_counted_reply_becomes_a_page():
    operation = Operation((2, 3, 6, 8), "block")
    reply = observe(Request("triton_fused", [(operation, CONTIGUOUS), (operation, CHANNELS_LAST)], [SMALL], SMALL))
    assert reply.failure is None
    text = kernel_tables.page({"triton_fused": through_pickle(reply)}, [])
    assert "| `triton_fused`   | (2, 3, 6, 8) batch norm + sigmoid + 2x2 max-pool, contiguous" in text
    assert "channels-last" in text
    assert "mean 1e6, std 1" in text


def test_a_failure_is_part_of_the_reply(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(MY_BN.replace("2 * x", "x @ x"))
    reply = observe(Request(str(path), [(Operation((4, 5), "norm"), CONTIGUOUS)], [SMALL], SMALL))
    assert isinstance(reply, Reply)
    assert "Error" in reply.failure


@pytest.mark.parametrize(
    ("registers", "shared", "warps", "occupancy"),
    [(32, 0, 8, 1.0), (64, 0, 8, 0.5), (65, 0, 4, 0.4375), (32, 64 << 10, 8, 0.375), (128, 0, 16, 0.25)],
)
def test_occupancy_is_what_registers_and_shared_memory_leave(registers, shared, warps, occupancy):
    assert TARGETS["sm_90"].occupancy(registers, shared, warps) == occupancy


def test_a_launch_knows_its_programs():
    launch = Launch("f.py", "k", (6, 36), {"x": Pointer(torch.float32, True)}, (), {}, {"x": 8}, {"x": 4})
    assert (launch.programs, launch.bytes_moved) == (216, 12)

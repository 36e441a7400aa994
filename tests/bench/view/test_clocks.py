"""Pages of a GPU's records, and of cold caches: each clock has its own answer, table and verdicts."""

import csv
import io
import re

import pytest

from bench.record.labels import AA, BASELINE
from bench.view import headline, index, latency_page, latency_plots, latency_tables, roofline_tables, side_by_side
from bench.view.latency_tables import csv_page
from bench.view.timings import DEVICE
from tests.bench.samples import IDLE, Session, row_of, table
from tests.bench.view.test_profile_tables import SEPARATE, profile

BLOCK = {"shape": "256x6x24x24", "operation": "block"}
GLANCE = "## Ratios at a glance, on the device"
FORWARD, BACKWARD = "256x6x24x24 block, training", "256x6x24x24 block, training backward"


def clock(ratio, microseconds):
    baseline_ns = [round(microseconds * 1e3)] * 20
    ours = [round(ns * ratio) for ns in baseline_ns]
    return {
        "iterations": 1,
        "candidate_ns": ours,
        "baseline_ns": baseline_ns,
        "ratio": [ratio, ratio - 0.01, ratio + 0.01],
    }


def timed(graph=None, cold=1.0):
    return {"device_time": {"cold": clock(cold, 40), **({"graph": clock(graph, 20)} if graph else {})}}


@pytest.fixture
def gpu(folder):
    """By wall time `triton_fused` is slower in both passes, on the device far faster; a backward has no graph."""
    session = Session(folder, device="cuda", device_name="Test GPU")
    for name, wall, graph, cold in (
        (BASELINE, 1.0, 1.0, 1.0),
        (AA, 1.0, 1.0, 1.0),
        ("compiled", 2.0, 0.5, 0.7),
        ("triton_fused", 1.3, 0.1, 0.3),
    ):
        interval = (wall, wall - 0.01, wall + 0.01)
        session.cell(name, interval, **BLOCK, **timed(graph, cold))
        session.cell(name, interval, **BLOCK, pass_name="training backward", **timed(cold=cold))
    return session


def test_the_first_paragraph_names_both_clocks_where_they_disagree(gpu):
    paragraph = latency_plots.sentence(gpu.records).split("\n\n")[0]
    wall, device = paragraph.split("On the device")
    assert wall.startswith("By wall time")
    assert "**`triton_fused` is faster than the best alternative in 0 of 2 cells** and **slower in 2**" in wall
    assert "256x6x24x24 block, training backward (1.30 [1.29, 1.31] times `builtin`'s time)" in wall
    assert "**`triton_fused` is faster than the best alternative in 2 of 2 cells**." in device
    assert "take 0.2 times as long as with the best alternative (`compiled`), and 0.1 times" in device
    assert paragraph in latency_page.page(gpu.records)


def test_each_clock_is_counted_against_the_baseline(gpu):
    _, wall, device = latency_plots.sentence(gpu.records).split("\n\n")
    assert "by wall time: " in wall
    assert "`triton_fused` is faster in 0 of 2 cells, slower in 2" in wall
    assert "on the device: " in device
    assert "`triton_fused` is faster in 2 of 2 cells, slower in 0" in device


def test_the_second_glance_table_is_of_graphs_and_of_cold_calls_where_none_can_be_captured(gpu):
    rows = table(latency_page.page(gpu.records), GLANCE)
    forward, backward = row_of(rows, FORWARD), row_of(rows, BACKWARD)
    assert (forward["clock"], forward["builtin, µs"], forward["triton_fused"]) == ("graph", "20", "**0.10 faster**")
    assert (backward["clock"], backward["builtin, µs"], backward["triton_fused"]) == ("cold", "40", "**0.30 faster**")
    assert forward["compiled"] == "0.50 faster"
    first = row_of(table(latency_page.page(gpu.records), "## Ratios at a glance, by wall time"), FORWARD)
    assert (first["builtin, µs"], first["triton_fused"]) == ("**100**", "1.30 slower")


def test_a_cell_is_compared_by_one_clock_only(gpu):
    refused = {"device_time": {"cold": clock(0.01, 40), "graph": {"reason": "RuntimeError: not permitted"}}}
    gpu.cell("naive", **BLOCK, **refused)
    row = row_of(latency_rows(gpu), FORWARD)
    assert (row["clock"], row["naive"]) == ("graph", "not captured")
    assert row["triton_fused"] == "**0.10 faster**"


def latency_rows(session):
    return table(f"## x\n{latency_tables.summary(session.records, DEVICE)}", "## x")


def test_the_tables_of_cells_have_verdicts_of_both_clocks(gpu):
    text = latency_page.page(gpu.records)
    _, _, cell = text.partition("### (256, 6, 24, 24)")
    rows = table("## y\n" + cell[cell.index("| pass, implementation ", cell.index("\n\n|") + 10) :], "## y")
    row = row_of(rows, "training backward, triton_fused")
    assert (row["cold, verdict"], row["graph, verdict"], row["graph, µs"]) == ("faster", "–", "–")
    assert row_of(rows, "training, compiled")["graph, verdict"] == "faster"


def test_the_csv_has_the_verdicts_at_its_end(gpu):
    rows = list(csv.DictReader(io.StringIO(csv_page(gpu.records))))
    row = next(r for r in rows if (r["implementation"], r["pass"]) == ("triton_fused", "training"))
    assert (row["verdict"], row["device_graph_verdict"], row["device_cold_verdict"]) == ("slower", "faster", "faster")
    names = list(row)
    assert names.index("commit") < names.index("device_cold_noise_floor")
    assert {row["cold_verdict"], row["cold_noise_floor"]} == {""}


def test_without_a_gpu_nothing_is_said_of_it(session):
    session.cell(BASELINE, **BLOCK)
    session.cell("naive", (2.0, 1.9, 2.1), **BLOCK)
    text = latency_page.page(session.records)
    for word in ("device", "host", "graph", "wall time", "L2"):
        assert word not in text.partition("## Implementations")[0]
    assert latency_plots.device_plot(session.records) == ""


def test_there_is_a_plot_by_each_clock(gpu):
    pytest.importorskip("matplotlib")
    wall, device = latency_plots.plot(gpu.records), latency_plots.device_plot(gpu.records)
    assert "Wall time of LeNet's blocks" in wall
    assert "1.30 [1.29, 1.31] slower" in wall
    assert "replayed as a CUDA graph" in device
    assert "0.10 [0.09, 0.11] faster" in device
    assert set(re.findall(r"\]\((latency[\w-]*\.svg)\)", latency_page.page(gpu.records))) == {
        "latency.svg",
        "latency-device.svg",
    }


def test_the_index_has_both_clocks(gpu):
    fused = next(line for line in headline.headline(gpu.records) if line.implementation == "`triton_fused`")
    assert (fused.block, fused.block_ratio, fused.verdict) == ("130", "1.30 [1.29, 1.31]", "slower")
    assert (fused.device_block, fused.device_ratio, fused.device_verdict) == ("2", "**0.10 [0.09, 0.11]**", "faster")
    wall, device = headline.sentence(gpu.records).split("On the device, as a replayed CUDA graph, ")
    assert "`triton_fused` is slower than the best alternative (`builtin`) at LeNet's first block: 1.30 [1.29," in wall
    assert "; it is slower in 2 of 2 cells, most at" in wall
    assert "`triton_fused` takes 0.20 [0.18, 0.22] of the best alternative's time (`compiled`) and 0.10 [" in device
    assert "slower" not in device
    assert "ratio on the device" in headline.table(gpu.records)
    readme = index.readme([index.Machine("cuda-a", gpu.records, [], {})], "results")
    assert readme.startswith("On Test GPU, host: Test CPU, 2 cores ([all tables](results/cuda-a/)):\n\n- By wall time")
    assert "\n- On the device, as a replayed CUDA graph, " in readme
    assert "cold caches" not in headline.table(gpu.records)


def test_machines_side_by_side_have_the_device_in_a_table_of_its_own(gpu, tmp_path):
    cpu = Session(tmp_path / "cpu")
    cpu.cell(BASELINE, **BLOCK)
    cpu.cell("cpu_fused", (0.5, 0.49, 0.51), **BLOCK)
    text = side_by_side.tables([("cuda-a", gpu.records), ("cpu-b", cpu.records)])
    title = next(line for line in text.splitlines() if line.startswith("**The same block on the device"))
    rows = table(text, title)
    assert row_of(rows, "`triton_fused`") == {
        "implementation": "`triton_fused`",
        "cuda-a": "2 (**0.10 [0.09, 0.11]**), faster",
        "cpu-b": "–",
    }
    assert row_of(rows, "`compiled`")["cuda-a"] == "10 (0.50 [0.49, 0.51] †), faster"
    assert "†: best alternative on that machine" in text
    assert "`cpu_fused`" not in {row[0] for row in rows}
    assert "On a GPU, times and ratios are wall time" in text
    assert "wall time" not in side_by_side.tables([("cpu-a", cpu.records), ("cpu-b", cpu.records)])


def test_a_share_of_the_copy_is_of_wall_time_and_bandwidth_on_the_device_has_no_share(gpu):
    for name, ratio in ((BASELINE, 1.0), ("triton_fused", 0.1)):
        gpu.cell(name, (1.0, 0.99, 1.01), **timed(ratio, ratio))
    text = roofline_tables.page(gpu.records)
    assert "By wall time, the host's launches included, `builtin` reaches 20%" in text
    rows = table(text, "## Bandwidth on the device")
    assert row_of(rows, "256x84 norm, training") == {
        "GB/s, cold": "256x84 norm, training",
        "`builtin`": "10.8",  # 430,080 bytes in 40 µs
        "`compiled`": "–",
        "`triton_fused`": "108",
    }


def test_a_step_on_the_device_is_held_against_blocks_on_the_device(folder):
    session = Session(folder, device="cuda", device_name="Test GPU")
    for shape in ("256x6x24x24", "256x16x8x8", "256x120", "256x84"):
        for name, wall, graph in ((BASELINE, 1.0, 1.0), ("triton_fused", 1.5, 0.25)):
            session.cell(name, (wall, wall, wall), shape=shape, operation="block", **timed(graph))
    session.step("triton_fused", (1.2, 1.1, 1.3), **timed(0.6))
    profile(session, BASELINE, SEPARATE)
    text = latency_page.page(session.records)
    assert row_of(table(text, "## From blocks to a step"), "triton_fused") == {
        "implementation": "triton_fused",
        "blocks, wall time": "1.50",
        "blocks, device": "0.25",
        "step, expected from wall time": "1.25",  # half of a watched step
        "step, expected from device": "0.65",  # 4 of the 8.5 ms in which kernels run
        "step, measured by wall time": "1.20 [1.10, 1.30]",
        "step, measured on the device": "0.60 [0.59, 0.61]",
    }


def test_conditions_tell_the_gpu_from_its_host(folder):
    session = Session(folder, device="cuda", device_name="Test GPU", cpu="Test CPU")
    cool, hot = (
        {**IDLE, "gpu_mhz": m, "gpu_celsius": c, "gpu_throttle_reasons": 1} for m, c in ((1980, 40), (1700, 80))
    )
    session.cell(BASELINE, state_before=cool, state_after=hot)
    text = latency_page.page(session.records)
    assert "- Test GPU (cuda); host: Test CPU, 2 cores" in text
    assert "- GPU clock 1700 to 1980 MHz, 40 to 80 °C; not throttled" in text  # idle before and after is no throttling
    session.cell("naive", state_before=cool, state_after={**hot, "gpu_throttle_reasons": 0x44})
    assert "**throttled**: power limit and hardware, by temperature" in latency_page.page(session.records)


def test_report_html_has_a_chart_and_columns_of_the_device(gpu):
    pytest.importorskip("bokeh")
    (section,) = latency_page.sections(gpu.records)
    wall, device, _, cells = section.models
    assert (wall.name, device.name) == ("ratios", "ratios-device")
    assert device.renderers[0].data_source.data["ratio"] == [1.0, 0.5, 0.1]
    columns = cells.source.data
    backward = [
        {name: values[i] for name, values in columns.items()}
        for i, found in enumerate(columns["implementation"])
        if found == "triton_fused" and columns["pass"][i] == "training backward"
    ]
    assert [(row["ratio"], row["cold ratio"], row["graph verdict"]) for row in backward] == [(1.3, 0.3, "")]


# Cold caches of a CPU


def swept(ratio):
    return {"cold": {**clock(ratio, 200), "rounds": 20, "swept_bytes": 40 << 20}}


def test_cold_caches_have_an_answer_a_table_and_verdicts(session):
    for name, warm, cold in ((BASELINE, 1.0, 1.0), (AA, 1.0, 1.0), ("naive", 0.8, 1.5), ("compiled", 0.9, 0.5)):
        session.cell(name, (warm, warm - 0.01, warm + 0.01), **BLOCK, **swept(cold))
    text = latency_page.page(session.records)
    warm, cold = text.split("\n\n")[1].split("With cold caches, ")
    assert warm.startswith("With warm caches, **`naive` is fastest")
    assert cold.startswith("**`compiled` is fastest")
    row = row_of(table(text, "## Ratios at a glance, cold caches"), FORWARD)
    assert (row["builtin, µs"], row["naive"], row["compiled"]) == ("200", "1.50 slower", "**0.50 faster**")
    line = next(line for line in headline.headline(session.records) if line.implementation == "`compiled`")
    assert line.cold_ratio == "**0.50 [0.49, 0.51]**"
    assert "With cold caches, `compiled` (0.50 [0.49, 0.51]) is fastest" in headline.sentence(session.records)


def test_a_terminal_has_both_clocks_of_a_gpu_and_warm_caches_only(gpu, tmp_path):
    device = latency_page.short(gpu.records).split("Latency, on the device: ")[1]
    assert "graph" in device
    assert "0.10 faster *" in device
    cpu = Session(tmp_path / "cpu")
    cpu.cell("naive", (0.8, 0.79, 0.81), **BLOCK, **swept(1.5))
    text = latency_page.short(cpu.records)
    assert text.startswith("Latency, warm caches: ")
    assert "0.80 faster" in text
    assert "1.50" not in text


def test_the_floor_of_cold_caches_is_that_of_cold_aa_rows(session):
    session.cell(AA, (1.0, 0.999, 1.001), **BLOCK, **swept(1.4))
    session.cell("naive", (0.8, 0.79, 0.81), **BLOCK, **swept(0.8))
    row = list(csv.DictReader(io.StringIO(csv_page(session.records))))[-1]
    assert (row["implementation"], row["verdict"], row["cold_verdict"]) == ("naive", "faster", "unclear")
    assert float(row["cold_noise_floor"]) > 0.4 > float(row["noise_floor"])

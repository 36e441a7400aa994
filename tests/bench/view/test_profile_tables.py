"""`profile.md` and its plots: from records to rows, and an answer on top."""

import csv
import io

import pytest

from bench import report
from bench.record.parts import BACKWARD, BATCH_NORM, BLOCK, CONVOLUTION, FORWARD, LOSS, OPTIMIZER, POOLING
from bench.record.records import ERROR
from bench.record.runs import of_one_run
from bench.view.operator_tables import who_ran
from bench.view.profile_tables import bars, between_ms, csv_page, done, page, profiles, sentence, short
from bench.view.scaling_tables import pays_from
from tests.bench.samples import IDLE, Session, candidate, row_of, table

PARTS = "## The parts of a step"


def part(name, direction, child, ms, busy):
    return {"part": name, "pass": direction, "child": child, "ms": ms, "operators_ms": busy}


def operator(name, of, direction, self_us, kernels=()):
    row = {"part": of, "pass": direction, "operator": name, "calls": 2.0, "self_us": self_us, "bytes": 2048.0}
    return {**row, "kernels": list(kernels)}


def profile(session, name, slot, *, torch_ran=(), data="fashion-mnist", images=60_000, kernels=(), **changes):
    """A step of 10 ms: convolutions 4 ms, `slot` and what is between operators the rest."""
    key = {"kind": "profile", "implementation": name, "data": data, "images": images, "batch_size": 256}
    key |= {"lr": 1.0, "seed": 0, "epoch": 1, "dtype": "float32", "of": "step"}
    others = [part(CONVOLUTION, FORWARD, "0", 1.5, 1.5), part(CONVOLUTION, BACKWARD, "4", 2.5, 2.5)]
    others += [part(LOSS, FORWARD, "", 0.5, 0.25), part(OPTIMIZER, "", "", 0.5, 0.25)]
    own = "aten::native_batch_norm" if torch_ran else "aten::rsqrt"
    outcome = {
        "status": "ok",
        "backend": "eager",
        "data": f"Test data {data}",
        "digest": "0000",
        "parts": [*others, *slot],
        "step_ms": 9.5,
        "watched_ms": 10.0,
        "profiled_ms": 12.0,
        "step_ns": [9_500_000] * 4,
        "steps": 4,
        "operators": [
            operator("aten::conv2d", CONVOLUTION, FORWARD, 1500.0, kernels),
            operator(own, BATCH_NORM, FORWARD, 900.0),
            operator("aten::tiny", OPTIMIZER, "", 1.0),
        ],
        "batch_norm_operators": {"own": [own], "torch": list(torch_ran)},
        "trace": "traces/x.json.gz",
        "state_before": IDLE,
        "state_after": IDLE,
    }
    return session.run.append(key, outcome | changes, candidate(name))


SEPARATE = [
    part(BATCH_NORM, FORWARD, "1", 1.0, 0.75),
    part(BATCH_NORM, BACKWARD, "1", 2.0, 1.25),
    part(POOLING, FORWARD, "1", 2.0, 2.0),
]
FUSED = [part(BLOCK, FORWARD, "1", 0.5, 0.25), part(BLOCK, BACKWARD, "1", 1.0, 0.5)]


@pytest.fixture
def profiled(session):
    profile(session, "builtin", SEPARATE, torch_ran=["aten::native_batch_norm"])
    profile(session, "naive", SEPARATE)
    profile(session, "cpu_fused", FUSED)
    return session


def test_the_answer_is_on_top(profiled):
    steps = done(profiles(profiled.records, "step"))
    assert sentence(steps) == (
        "`builtin`'s training step takes 9.5 ms: convolution 40%, batch norm 20%, pooling 20%, between operators 15%"
        " and loss 2%. Batch norm, activation and pooling, Python included, take 5 ms of it; with `cpu_fused` they"
        " take 1.5 ms."
    )
    assert page(profiled.records).index(sentence(steps)) < page(profiled.records).index("profile-step.svg")
    assert sentence({}) == "No implementation's step could be profiled beside `builtin`'s."


def test_a_column_adds_up_to_the_watched_step(profiled):
    rows = table(page(profiled.records), PARTS)
    column = {row[0]: row[rows[0].index("builtin")] for row in rows[1:]}
    assert column["batch norm, forward"] == "0.75 (8%)"
    assert column["batch norm, backward"] == "1.25 (12%)"
    assert column["**between operators**"] == "1.50 (15%)"
    assert column["*watched step*"] == "10.00 (100%)"
    assert column["*step*"] == "9.50 (95%)"
    assert column["*recorded step*"] == "12.00 (120%)"
    summed = sum(float(cell.split()[0]) for label, cell in column.items() if label[0] != "*" and cell != "–")
    assert summed + 1.5 == pytest.approx(10.0)


def test_a_fused_block_has_a_row_of_its_own(profiled):
    rows = table(page(profiled.records), PARTS)
    assert row_of(rows, "fused block, backward")["cpu_fused"] == "0.50 (8%)"
    assert row_of(rows, "fused block, backward")["builtin"] == "–"


def test_bars_have_all_of_a_step(profiled):
    steps = done(profiles(profiled.records, "step"))
    for name, found in bars(steps).items():
        assert sum(found.values()) == pytest.approx(sum(p["ms"] for p in steps[name]["parts"]))
    assert between_ms(steps["builtin"]) == pytest.approx(1.5)


def test_the_page_says_who_ran(profiled):
    steps = profiles(profiled.records, "step")
    assert who_ran(steps["naive"]) == "Only its batch norm ran `aten::rsqrt`. Torch's own batch norm did not run."
    assert who_ran(steps["builtin"]) == "Torch's own batch norm ran: `aten::native_batch_norm`."


def test_small_operators_are_in_the_csv_only(profiled):
    assert "aten::tiny" not in page(profiled.records)
    rows = list(csv.DictReader(io.StringIO(csv_page(profiles(profiled.records, "step")))))
    assert {row["operator"] for row in rows} >= {"aten::tiny", "aten::conv2d"}
    assert "kernels" not in page(profiled.records)


def test_kernels_of_a_gpu_are_named(session):
    kernels = [{"name": "implicit_gemm", "launches": 3.0, "device_us": 70.0}]
    profile(session, "builtin", SEPARATE, kernels=kernels)
    row = next(row for row in table(page(session.records), "Torch's own batch norm did not run.") if "conv2d" in row[1])
    assert row[-3:] == ["`implicit_gemm`", "3", "70.0"]
    assert "implicit_gemm,3.0,70.0" in csv_page(profiles(session.records, "step"))


def test_a_gpu_page_is_of_kernels_and_of_the_host_that_launches_them(folder):
    session = Session(folder, device="cuda", device_name="Test GPU")
    kernels = [{"name": "implicit_gemm", "launches": 3.0, "device_us": 70.0}]
    profile(session, "builtin", SEPARATE, kernels=kernels)
    profile(session, "triton_fused", FUSED, kernels=kernels)
    scale(session, "builtin", 10.0, 1.0)
    text = page(session.records)
    answer = text.split("\n\n")[1]
    assert "9.5 ms of wall time in eager mode" in answer
    assert "no kernel running 15%" in answer
    assert answer.endswith(
        "The kernels of batch norm, activation and pooling take 4 ms of it; with `triton_fused` they take 0.75 ms."
    )
    assert row_of(table(text, PARTS), "**no kernel running**")["builtin"] == "1.50 (15%)"
    assert "threads" not in table(text, "![Time of a call over the number of elements](profile-scaling.svg)")[0]
    for word in ("between operators", "use its threads", "Python included"):
        assert word not in text


def test_only_the_newest_settings_are_shown(profiled):
    profile(profiled, "naive", SEPARATE, data="other", images=10)
    assert list(profiles(of_one_run(profiled.records), "step")) == ["naive"]


def test_who_failed_is_named(profiled):
    profile(profiled, "bad.py", [], status=ERROR, reason="RuntimeError: broken")
    text = page(profiled.records)
    assert "- `bad.py`: **RuntimeError: broken**" in text
    assert "bad.py" not in table(text, PARTS)[0]


def test_for_a_terminal_there_is_no_markdown(profiled):
    assert "*" not in short(profiled.records)
    assert "between operators" in short(profiled.records)


# Memory, scaling, and all files


def weigh(session, name):
    key = {"kind": "profile", "implementation": name, "data": "fashion-mnist", "images": 60_000, "of": "memory"}
    outcome = {
        "status": "ok",
        "backend": "eager",
        "saved_batch": 256,
        "saved": [{"part": BATCH_NORM, "child": "1", "bytes": 2048}, {"part": LOSS, "child": "", "bytes": 512}],
        "batches": [
            {"batch_size": n, "saved_bytes": n * 2**20, "peak_bytes": 2 * n * 2**20 if n < 1000 else None}
            for n in (64, 256, 1024)
        ],
        "state_before": IDLE,
        "state_after": IDLE,
    }
    return session.run.append(key, outcome, candidate(name))


def scale(session, name, overhead, slope):
    key = {"kind": "profile", "implementation": name, "of": "scaling", "dtype": "float32"}
    points = [
        {"threads": t, "elements": n, "ns": 1e3 * overhead + slope * n / t, "baseline_ns": 1e4 + n, "rounds": 9}
        for t in (1, 2)
        for n in (1024, 1_048_576)
    ]
    fits = [{"threads": t, "overhead_us": overhead, "ns_per_element": slope / t, "largest_error": 0.25} for t in (1, 2)]
    outcome = {"status": "ok", "backend": "eager", "points": [{**p, "iterations": 1} for p in points], "fits": fits}
    return session.run.append(key, {**outcome, "state_before": IDLE, "state_after": IDLE}, candidate(name))


@pytest.fixture
def whole(profiled):
    for name in ("builtin", "naive"):
        weigh(profiled, name)
    scale(profiled, "builtin", 10.0, 1.0)
    scale(profiled, "naive", 50.0, 0.5)
    return profiled


def test_memory_is_given_by_batch_size_and_by_part(whole):
    text = page(whole.records)
    rows = table(text, "![Peak memory of a step over the batch size](profile-memory.svg)")
    assert rows[0] == ["MiB", "implementation", "batch 64", "batch 256", "batch 1024"]
    assert ["peak", "`naive`", "128.00", "512.00", "–"] in rows
    rows = table(text, "### What is kept for the backward, batches of 256")
    assert [row[:2] for row in rows[1:]] == [["1 batch norm", "2.0"], ["loss", "0.5"], ["**all**", "2.5"]]


def test_scaling_names_who_pays_least(whole):
    text = page(whole.records)
    assert (
        "Cost per call is lowest with `builtin` (10 µs), cost per element with `naive` (0.25 ns; `builtin` 0.5)."
        in text
    )
    rows = table(text, "![Time of a call over the number of elements](profile-scaling.svg)")
    assert ["`naive`", "2", "50", "0.25", "1,048,576", "25%", "0.312", "0.29"] in rows


@pytest.mark.parametrize(
    ("two", "expected"),
    [
        ((100, 100, 50), 400),
        ((50, 100, 50), 400),
        ((100, 50, 50), 200),
        ((50, 50, 96), None),
    ],
)
def test_threads_pay_where_they_pay_at_all_larger_sizes(two, expected):
    points = [{"threads": 1, "elements": n, "ns": 100} for n in (100, 200, 400)]
    points += [{"threads": 2, "elements": n, "ns": ns} for n, ns in zip((100, 200, 400), two, strict=True)]
    assert pays_from({"threads": 2, "points": points}) == expected


def test_a_folder_gets_pages_tables_and_plots(whole):
    pytest.importorskip("matplotlib")
    written, _ = report.build(whole.folder)
    names = {path.name for path in written}
    assert {"profile.md", "profile.csv", "profile-parts.csv", "profile-memory.csv", "profile-scaling.csv"} <= names
    for name in ("profile-step.svg", "profile-memory.svg", "profile-scaling.svg"):
        assert f"({name})" in (whole.folder / "profile.md").read_text()
        assert "<svg" in (whole.folder / name).read_text()
        assert "cpu_fused" in (whole.folder / "profile-step.svg").read_text()


def test_without_matplotlib_there_are_pages_and_no_plots(whole, monkeypatch):
    monkeypatch.setattr(report.importlib.util, "find_spec", lambda _: None)
    names = {path.name for path in report.build(whole.folder)[0]}
    assert "profile.md" in names
    assert not any(name.endswith(".svg") for name in names)

"""`step.md` and `step.csv` out of records, and what of them is in the headline."""

import csv
import io

import pytest

from bench import report
from bench.record.labels import AA, BASELINE, PLAIN
from bench.record.records import ERROR, UNAVAILABLE, WRONG
from bench.view import headline, step_tables
from bench.view.step_tables import csv_page, page
from tests.bench.samples import Session, row_of, table

TITLE = "## 256 images of Test data fashion-mnist"
COLD = {"iterations": 1, "candidate_ns": [8_000, 9_000, 7_000], "baseline_ns": [16_000] * 3, "ratio": [0.5, 0.4, 0.6]}
GRAPH = {**COLD, "ratio": [0.25, 0.2, 0.3125]}
BROKEN = {"reason": "RuntimeError: operation not permitted when stream is capturing"}


@pytest.fixture
def stepped(session):
    """The usual implementations, in no particular order."""
    session.step(PLAIN, (0.7, 0.69, 0.71))
    session.step("naive", (1.25, 1.2, 1.3))
    session.step("cpu_fused", (0.5, 0.48, 0.52))
    session.step(AA, (1.01, 0.99, 1.02))
    session.step(BASELINE, (1.0, 1.0, 1.0))
    return session


def csv_rows(records):
    return {r["implementation"]: r for r in csv.DictReader(io.StringIO(csv_page(records)), strict=True)}


def test_rows_are_baseline_then_aa_then_implementations_then_plain_lenet(stepped):
    names = [row[0] for row in table(page(stepped.records), TITLE)[1:]]
    assert names == [BASELINE, AA, "naive", "cpu_fused", PLAIN]


def test_what_the_table_says(stepped):
    rows = table(page(stepped.records), TITLE)
    assert row_of(rows, "cpu_fused") == {
        "implementation": "cpu_fused",
        "step, ms": "5",
        "examples/sec": "51,200",
        "ratio to builtin": "0.50 [0.48, 0.52]",
        "verdict": "faster",
        "loss": "1.7353",
        "page faults per step": "0.25",
        "rounds × iterations": "20 × 1",
        "ran as": "native",
    }
    assert row_of(rows, "naive")["verdict"] == "slower"
    assert row_of(rows, AA)["verdict"] == "same"
    assert (row_of(rows, BASELINE)["verdict"], row_of(rows, BASELINE)["ratio to builtin"]) == ("baseline", "1")


def test_several_steps_a_round_are_divided(session):
    session.step("naive", (2.0, 1.9, 2.1), iterations=4)
    assert row_of(table(page(session.records), TITLE), "naive")["step, ms"] == "5"
    assert float(csv_rows(session.records)["naive"]["builtin_step_ms"]) == 2.5


def test_what_no_system_counts_is_a_dash(session):
    session.step("naive", page_faults_per_step=None)
    assert row_of(table(page(session.records), TITLE), "naive")["page faults per step"] == "–"


# The answer


def test_our_step_and_the_best_alternatives_are_on_top(stepped):
    text = page(stepped.records)
    answer = (
        "`cpu_fused` takes 0.50 [0.48, 0.52] of the best alternative's time (`builtin`) in a training step (5 ms,"
        " against 10 ms)."
    )
    assert answer in text
    assert text.index(answer) < text.index("| implementation")
    assert "CUDA graph" not in text.split("| implementation")[0]


def test_without_our_kernels_the_fastest_step_is_named(session):
    session.step(BASELINE, (1.0, 1.0, 1.0))
    session.step("naive", (0.5, 0.48, 0.52))
    assert "`naive` has the fastest training step: 5 ms, against 10 ms with `builtin` (2.00 [1.92, 2.08]" in page(
        session.records
    )


@pytest.mark.parametrize(("aa", "floor"), [((1.0, 0.99, 1.01), "3.0%"), ((1.2, 1.19, 1.21), "42.9%")])
def test_nobody_is_faster_within_the_noise_or_without_the_whole_interval(session, aa, floor):
    session.step(BASELINE, (1.0, 1.0, 1.0))
    session.step(AA, aa)
    session.step("naive", (0.9, 0.85, 1.0))
    assert f"No training step is faster than `builtin`'s by more than the noise floor ({floor})." in page(
        session.records
    )


def test_plain_lenet_and_aa_win_nothing(session):
    session.step(PLAIN, (0.5, 0.48, 0.52))
    session.step(AA, (0.5, 0.48, 0.52))
    session.step(BASELINE)
    assert "No implementation's step was compared with `builtin`'s." in page(session.records)


def test_the_noise_of_another_run_does_not_count(folder, session):
    session.step(AA, (1.5, 1.4, 1.6))
    second = Session(folder, "20260102T000000Z-0000")
    second.step("naive", (0.9, 0.89, 0.91))
    assert csv_rows(second.records)["naive"]["verdict"] == "faster"
    assert csv_rows(second.records)["naive"]["noise_floor"] == "0.03"
    assert csv_rows(second.records)[AA]["verdict"] == "slower"  # not held to itself


# What is not there


@pytest.mark.parametrize(
    ("status", "reason", "shown"),
    [
        (WRONG, "wrong: output off by 3e-02 (may be 2e-06)", "wrong: output off by 3e-02 (may be 2e-06)"),
        (ERROR, "RuntimeError: a | b", "RuntimeError: a | b"),
    ],
)
def test_a_step_that_was_not_timed_says_why(stepped, status, reason, shown):
    stepped.failed_step("my_bn.py", status, reason)
    row = row_of(table(page(stepped.records), TITLE), "my_bn.py")
    assert row["step, ms"] == shown
    assert set(list(row.values())[2:]) == {"–"}
    assert f"**{reason}**" in page(stepped.records)
    in_csv = csv_rows(stepped.records)["my_bn.py"]
    assert (in_csv["status"], in_csv["reason"], in_csv["step_ms"]) == (status, reason, "")
    assert in_csv["run"] == stepped.run.id


def test_who_can_not_run_here_has_a_line_and_no_row(stepped):
    rows = table(page(stepped.records), TITLE)
    stepped.failed_step("triton_fused", UNAVAILABLE, "needs a GPU")
    text = page(stepped.records)
    assert table(text, TITLE) == rows
    assert text.index("`triton_fused` is not measured here: needs a GPU.") < text.index("A step is")
    assert csv_rows(stepped.records)["triton_fused"]["status"] == UNAVAILABLE


def test_a_page_of_failures_alone_explains_no_figures(session):
    session.failed_step("my_bn.py", ERROR, "RuntimeError: broken")
    text = page(session.records)
    assert "RuntimeError: broken" in text
    assert "No implementation's step was compared with `builtin`'s." in text
    assert "**verdict**" not in text


# On a GPU


def test_both_clocks_of_a_gpu_are_in_page_and_csv(session):
    session.step(BASELINE, (1.0, 1.0, 1.0), device_time={"cold": COLD, "graph": GRAPH})
    session.step("naive", device_time={"cold": COLD, "graph": BROKEN})
    session.step("triton_fused", device_time={"cold": COLD, "graph": GRAPH})
    text = page(session.records)
    _, _, below = text.partition("**page faults**")
    rows = table("## GPU\n" + below, "## GPU")
    cold, graph = ["8", "0.50 [0.40, 0.60]", "faster"], ["8", "0.25 [0.20, 0.31]", "faster"]
    assert list(row_of(rows, "triton_fused").values())[1:] == cold + graph
    assert list(row_of(rows, "naive").values())[1:] == [*cold, BROKEN["reason"], "–", "–"]
    assert (row_of(rows, BASELINE)["graph, ratio"], row_of(rows, BASELINE)["graph, verdict"]) == ("1", "baseline")
    assert float(csv_rows(session.records)["triton_fused"]["device_graph_us"]) == 8.0
    assert csv_rows(session.records)["triton_fused"]["device_graph_verdict"] == "faster"
    assert csv_rows(session.records)["naive"]["device_graph_us"] == ""
    assert csv_rows(session.records)["naive"]["device_graph_verdict"] == ""


def gpu_steps(folder, **aa):
    """`triton_fused` slower by wall time, and a replayed graph of it four times as fast."""
    session = Session(folder, device="cuda", device_name="Test GPU")
    both = {"cold": COLD, "graph": GRAPH}
    session.step(BASELINE, (1.0, 1.0, 1.0), device_time=both)
    session.step("triton_fused", (1.2, 1.19, 1.21), device_time=both)
    quiet = {**COLD, "ratio": [1.0, 0.999, 1.001]}
    session.step(AA, device_time={"cold": quiet, "graph": quiet, **aa})
    return session


def test_the_answer_names_both_clocks_where_they_disagree(folder):
    answer = page(gpu_steps(folder).records).split("| implementation")[0]
    wall, device = answer.split("On the device, as a replayed CUDA graph, ")
    assert "`triton_fused` is slower than the best alternative (`builtin`) in a training step: 1.20 [1.19, 1" in wall
    assert "`triton_fused` takes 0.25 [0.20, 0.31] of the best alternative's time (`builtin`)" in device


def test_a_replayed_graph_is_held_to_the_aa_row_of_its_own_clock(folder):
    assert csv_rows(gpu_steps(folder).records)["triton_fused"]["device_graph_verdict"] == "faster"
    noisy = {**GRAPH, "ratio": [2.0, 1.99, 2.01]}
    records = gpu_steps(folder / "noisy", graph=noisy).records
    row = csv_rows(records)["triton_fused"]
    assert (row["device_graph_verdict"], row["device_cold_verdict"], row["verdict"]) == ("unclear", "faster", "slower")
    assert float(row["device_graph_noise_floor"]) > float(row["noise_floor"])
    assert "`triton_fused` is tied with the best alternative" in page(records).split("On the device")[1]


def test_report_html_has_milliseconds_by_each_clock(folder):
    pytest.importorskip("bokeh")
    (section,) = step_tables.sections(gpu_steps(folder).records)
    columns = section.models[-1].source.data
    place = columns["implementation"].index("triton_fused")
    assert (columns["step, ms"][place], columns["ratio"][place]) == (12, 1.2)
    assert (columns["graph step, ms"][place], columns["graph ratio"][place]) == (0.008, 0.25)


def test_a_gpu_page_does_not_speak_of_page_faults(folder):
    text = page(gpu_steps(folder).records)
    assert "page faults" not in text
    assert "All of this is wall\ntime in eager mode" in text
    assert csv_rows(gpu_steps(folder / "csv").records)["triton_fused"]["page_faults_per_step"] == "0.25"


def test_the_index_has_steps_on_the_device(folder):
    records = gpu_steps(folder).records
    fused = headline_row(records, "triton_fused")
    assert (fused.step_ratio, fused.device_step_ratio) == ("1.20 [1.19, 1.21]", "**0.25 [0.20, 0.31]**")
    wall, device = headline.sentence(records).split("On the device, as a replayed CUDA graph, ")
    assert "`triton_fused` is slower than the best alternative (`builtin`) in a training step: 1.20 [" in wall
    assert "`triton_fused` takes 0.25 [0.20, 0.31] of the best alternative's time (`builtin`) in a" in device


def test_without_a_gpu_the_page_does_not_speak_of_it(stepped):
    assert "On the device" not in page(stepped.records)


# CSV


def test_csv_has_unrounded_rows_with_the_same_columns(stepped):
    stepped.step("tutorial", (1 / 3, 0.3, 0.4))
    stepped.failed_step("my_bn.py", ERROR, 'with "quotes", and | bars')
    rows = list(csv.reader(io.StringIO(csv_page(stepped.records)), strict=True))
    assert {len(row) for row in rows} == {len(set(rows[0]))}
    assert len(rows) == 1 + 5 + 2
    row = csv_rows(stepped.records)["tutorial"]
    assert float(row["ratio_to_builtin"]) == 1 / 3
    assert float(row["step_ms"]) == 3.333333
    assert float(row["examples_per_s"]) == 256 / 0.003333333
    assert (row["images"], row["batch_size"], row["dtype"]) == ("60000", "256", "float32")


# Other pages


def headline_row(records, name):
    return next(line for line in headline.headline(records) if line.implementation == f"`{name}`")


def test_the_headline_takes_the_step_in_pairs_where_there_is_one(session):
    for name, pace in ((BASELINE, 1.0), ("naive", 2.0), ("tutorial", 3.0)):
        session.training(name, [pace] * 7)
    session.step("naive", (2.5, 2.4, 2.6))
    session.step("naive", (9.0, 9.0, 9.0), images=5120)
    session.failed_step("tutorial", ERROR, "RuntimeError: broken")
    session.step("cpu_fused", (0.5, 0.48, 0.52))
    assert headline_row(session.records, "naive").step_ratio == "2.50 [2.40, 2.60]"
    assert headline_row(session.records, "tutorial").step_ratio == "3.00 [3.00, 3.00]"
    fused = headline_row(session.records, "cpu_fused")
    assert (fused.step_ratio, fused.examples) == ("**0.50 [0.48, 0.52]**", "–")


def test_pages_and_the_terminal_get_their_part(stepped):
    written, digest = report.build(stepped.folder, stepped.run.id)
    assert [path.name for path in written] == ["records.jsonl", "step.md", "step.csv", "report.html"]
    assert "`cpu_fused` takes 0.50 [0.48, 0.52] of the best alternative's time (`builtin`)" in digest
    assert "0.50 [0.48, 0.52]" in digest


def test_nobody_is_fastest_by_less_than_identical_code_differs(session):
    session.step(BASELINE)
    session.step("naive", (0.92, 0.91, 0.93))
    assert headline_row(session.records, "naive").step_ratio == "**0.92 [0.91, 0.93]**"
    assert headline_row(session.records, BASELINE).step_ratio == "1"
    session.step(AA, (1.2, 1.19, 1.21))
    assert headline_row(session.records, BASELINE).step_ratio == "**1**"

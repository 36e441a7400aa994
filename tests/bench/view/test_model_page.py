"""The page of a network: its batch norms, its steps, and what its blocks predict of them."""

import csv
import io

import pytest

from bench import publish, report
from bench.record.labels import AA, BASELINE
from bench.view import model_page
from bench.view.model_records import choose, predicted
from models.networks import NetworkSpec
from tests.bench import model_samples as samples
from tests.bench.samples import Session

# Three blocks of 1 ms each with cold caches in a step of 10 ms: half of their time is 0.15 of the step.
GAIN = 0.15


@pytest.fixture
def session(tmp_path):
    one = Session(tmp_path / "cpu-test-2c")
    samples.norms(one)
    for name, ratio in ((AA, 1.0), (BASELINE, 1.0), ("cpu_fused", 0.5)):
        for operation in samples.NAMES:
            samples.block(one, name, operation, ratio)
    for name, ratio in ((AA, 1.0), (BASELINE, 1.0)):
        samples.step(one, name, ratio)
    return one


def test_the_page_leads_with_the_finding_and_lists_every_batch_norm(session):
    samples.step(session, "cpu_fused", 1 - GAIN)
    page = model_page.page(session.records)
    assert "The 3 batch norms of resnet18 take 30% of a step" in page
    assert "`cpu_fused` takes 0.85 [0.84, 0.86] of the best alternative's time (`builtin`) in a training" in page
    assert "8x3x32x32" in page
    for name in ("`bn1`", "`layer1.0.bn2`", "8x64x16x16", "batch norm + residual + ReLU", "**0.50**"):
        assert name in page


def test_the_prediction_is_the_step_without_what_the_blocks_gain(session):
    samples.step(session, "cpu_fused", 1 - GAIN)
    step = session.records[-1]
    assert predicted(step, session.records) == pytest.approx(1 - GAIN)
    page = model_page.page(session.records)
    assert "0.85" in page
    assert "predicted," not in page


def test_a_row_has_the_originals_time_of_its_own_rounds(session):
    """On a machine that slows down, a faster step takes longer than the baseline's row says."""
    samples.step(session, "cpu_fused", 1 - GAIN, milliseconds=2 * samples.STEP_MS)
    row = next(line for line in model_page.page(session.records).splitlines() if line.startswith("| cpu_fused"))
    assert [cell.strip() for cell in row.split("|")][2:5] == ["17", "20", "0.85 [0.84, 0.86]"]


def test_a_prediction_that_misses_says_so(session):
    samples.step(session, "cpu_fused", 0.95)
    page = model_page.page(session.records)
    assert "`cpu_fused`: +15.0% of a step predicted, +5.0% measured. A block alone" in page


def test_without_one_of_the_blocks_nothing_is_predicted(session):
    samples.step(session, "naive", 1.2)
    samples.block(session, "naive", samples.RELU, 2.0)
    naive = next(r for r in session.records if r["implementation"] == "naive")
    assert predicted(naive, session.records) is None


def test_nobody_faster_and_nothing_but_norms_have_their_sentences(session, tmp_path):
    samples.step(session, "naive", 1.5)
    assert "No implementation makes its training step faster" in model_page.page(session.records)
    alone = Session(tmp_path / "alone")
    samples.norms(alone)
    assert "3 batch norms" in model_page.page(alone.records)


def test_csv_has_each_row_by_each_clock(session):
    samples.step(session, "cpu_fused", 1 - GAIN)
    rows = list(csv.DictReader(io.StringIO(model_page.csv_page(session.records))))
    ours = [r for r in rows if r["implementation"] == "cpu_fused"]
    assert [(r["of"], r["clock"]) for r in ours] == [("block", c) for c in ("wall", "cold")] * 2 + [
        ("step", "wall"),
        ("step", "inference"),
    ]
    assert float(ours[-2]["predicted_ratio"]) == pytest.approx(1 - GAIN)
    assert ours[0]["verdict"] == "faster"


def test_each_network_has_a_file_of_its_newest_run(session):
    other = NetworkSpec("my_net.py:build")
    samples.norms(session, other)
    again = Session(session.folder, run="20260201T000000Z-0000")
    samples.norms(again, NetworkSpec("resnet18", (4, 3, 32, 32)))
    written, digest = report.build(session.folder, again.run.id)
    names = {path.name for path in written}
    assert {"model-resnet18.md", "model-resnet18.csv", "model-my_net-build.md", "model-my_net-build.csv"} <= names
    page = (session.folder / "model-resnet18.md").read_text()
    assert "4x3x32x32" in page
    assert "8x3x32x32" not in page
    assert "resnet18" in digest
    assert "my_net" not in digest
    assert {r["key"]["input"] for r in choose(again.records)} == {"4x3x32x32", "own"}


def test_a_network_is_published_whole_or_not_at_all(session):
    part = next(publish.parts(session.records))
    assert part.name == "the network resnet18"
    assert part.why_not() is None
    samples.step(session, "naive", 1.2)
    assert (
        "incomplete, 2 measurements missing (8x64x16x16 relu, naive" in next(publish.parts(session.records)).why_not()
    )


def test_on_a_gpu_the_device_has_the_word_on_blocks_and_steps(tmp_path):
    """By wall time the host's launches hide the gain; blocks predict what the device does."""
    one = Session(tmp_path, device="cuda", device_name="Test GPU")
    samples.norms(one)
    for operation in samples.NAMES:
        samples.block(one, "triton_fused", operation, 1.5, **samples.on_the_device(1.0, 0.5))
    for name, device_ratio in ((AA, 1.0), ("triton_fused", 1 - GAIN)):
        ratio = 1.0 if name == AA else 1.2
        samples.step(one, name, ratio, **samples.on_the_device(samples.STEP_MS, device_ratio))
    page = model_page.page(one.records)
    assert (
        "`triton_fused` is slower than the best alternative (`builtin`) in a training step: 1.20 [1.19, 1.21]" in page
    )
    assert "Timed on the device, without the host's launches: `triton_fused` takes 0.85" in page
    assert predicted(one.records[-1], one.records) == pytest.approx(1 - GAIN)
    assert "(on the device, cold caches)" in page
    rows = list(csv.DictReader(io.StringIO(model_page.csv_page(one.records))))
    assert {r["clock"] for r in rows} == {"wall", "inference", "device_cold"}
    assert [r["clock"] for r in rows if r["predicted_ratio"]] == ["device_cold"]


def test_the_html_report_has_a_table_per_network(session):
    samples.step(session, "cpu_fused", 1 - GAIN)
    (section,) = model_page.sections(session.records)
    assert section.title == "Batch norm in resnet18, 8x3x32x32"
    assert "`cpu_fused` takes 0.85" in section.answer
    assert "<h2>Batch norm in resnet18, 8x3x32x32</h2>" in report.html_page(session.records)

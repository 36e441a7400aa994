"""The page of the trained network's inference: where our kernel loses comes first, and each row says what it is."""

import csv
import io
import itertools
import re

import pytest

import kernels
from bench import publish, report
from bench.measure.inference import BATCHES
from bench.record.labels import AA, BASELINE
from bench.record.records import WRONG
from bench.view import inference_page
from bench.view.inference_answer import sentence
from models import deployed
from tests.bench.inference_samples import cell, failed, rounds
from tests.bench.samples import Session, row_of, table

# A first try on an idle machine.
RATIOS = {
    "cpu_fused": {1: 1.06, 256: 0.42, 1000: 0.39},
    "folded": {1: 0.77, 256: 0.99, 1000: 0.94},
    "compiled, frozen": {1: 0.66, 256: 0.60, 1000: 0.58},
    "onnxruntime": {1: 0.11, 256: 0.45, 1000: 0.38},
    "openvino": {1: 0.30, 256: 0.50, 1000: 0.34},
}


def fill(session, ratios=RATIOS, **changes):
    batches = sorted({batch for own in ratios.values() for batch in own})
    for batch in batches:
        for name in (AA, BASELINE):
            cell(session, name, batch, 1.0, **changes)
        for name, own in ratios.items():
            if batch in own:
                cell(session, name, batch, own[batch], **changes)
    return session


def first_paragraph(page):
    return page.split("\n\n")[1]


def test_the_first_paragraph_begins_with_where_our_kernel_loses_and_by_how_much(session):
    paragraph = first_paragraph(inference_page.page(fill(session).records))
    assert paragraph.startswith(
        "`cpu_fused` loses at 1 and 1,000 images."
        " At 1 image `onnxruntime` (0.11 [0.11, 0.11]) is fastest, while `cpu_fused` takes 1.06 [1.05, 1.07];"
        " `openvino` (0.30 [0.30, 0.30]), `compiled, frozen` (0.66 [0.65, 0.67]), `folded` (0.77 [0.76, 0.78]) and"
        " `builtin` are ahead of it too."
        " At 1,000 images `openvino` (0.34 [0.34, 0.34]) is fastest, while `cpu_fused` takes 0.39 [0.39, 0.39]."
        " At 256 images `cpu_fused` (0.42 [0.42, 0.42]) is fastest."
    )
    assert "Ratios are time / eager `builtin`'s" in paragraph


def test_who_is_ahead_by_less_than_the_noise_is_not_ahead(session):
    """At 1,000 images `onnxruntime` has 0.38, ours 0.39, and A/A rows are held to 3%."""
    text = sentence(fill(session).records)
    of_1000 = re.search(r"At 1,000 images .*?\.(?= At|$)", text).group()
    assert "`onnxruntime`" not in of_1000


def test_winning_everywhere_and_ties_have_their_sentences(session):
    fill(session, {"cpu_fused": {1: 0.5, 256: 0.4}, "onnxruntime": {1: 0.8, 256: 0.4}})
    assert sentence(session.records).startswith(
        "`cpu_fused` is fastest or tied at every batch size. At 1 image `cpu_fused` (0.50 [0.49, 0.51]) is fastest."
        " At 256 images `cpu_fused` (0.40 [0.40, 0.40]) and `onnxruntime` (0.40 [0.40, 0.40]) are tied for fastest."
    )


def test_losing_to_builtin_itself_is_losing(session):
    fill(session, {"cpu_fused": {1: 1.2}, "folded": {1: 1.3}})
    assert sentence(session.records).startswith(
        "`cpu_fused` loses at 1 image. At 1 image `builtin` is fastest, while `cpu_fused` takes 1.20 [1.19, 1.21]."
    )


def test_without_a_time_our_kernel_has_lost(session):
    fill(session, {"folded": {32: 0.8}})
    failed(session, "cpu_fused", 32, "wrong: logits off by 2e+00", WRONG)
    assert sentence(session.records).startswith(
        "`cpu_fused` loses at 32 images. At 32 images `folded` (0.80 [0.79, 0.81]) is fastest; `cpu_fused` has no time"
        " (wrong: logits off by 2e+00)."
    )


def test_where_no_kernel_of_ours_runs_the_page_says_who_is_best(session):
    fill(session, {"folded": {1: 0.8}})
    failed(session, "cpu_fused", 1, "no C++ compiler")
    assert sentence(session.records).startswith(
        "No fused kernel of this project was measured here. At 1 image `folded` (0.80 [0.79, 0.81]) is fastest."
    )


def test_the_baseline_alone_is_compared_with_nothing(session):
    fill(session, {"builtin": {1: 1.0}})
    assert sentence(session.records).startswith("Nothing was compared with eager `builtin`.")


def test_each_batch_size_has_a_table(session):
    fill(session)
    cell(session, "folded, compiled", 1, 0.7, differing=2, logit_error=4.2e-7, file_bytes=174_080, prepare_seconds=6.5)
    page = inference_page.page(session.records)
    rows = table(page, "## 1 image")
    assert row_of(rows, "folded, compiled") == {
        "way": "folded, compiled",
        "latency, µs": "140 [140, 140]",
        "ratio": "0.70 [0.69, 0.71]",
        "verdict": "faster",
        "images/sec": "7,143",
        "file, KiB": "170",
        "differing": "2 of 1,000",
        "logit error": "4e-07",
        "prepared in, s": "6.5",
        "rounds × iterations": "20 × 2",
        "ran as": "eager",
    }
    assert [row[0] for row in rows[1:]] == [
        "builtin",
        "A/A",
        "cpu_fused",
        "folded",
        "folded, compiled",
        *list(RATIOS)[2:],
    ]
    assert "## 1,000 images" in page
    overview = table(page, "## Time / eager `builtin`'s time")
    assert overview[0] == ["way", "1 image", "256 images", "1,000 images"]
    assert row_of(overview, "onnxruntime")["1 image"] == "**0.11 [0.11, 0.11]**"
    assert row_of(overview, "folded, compiled")["256 images"] == "–"
    assert row_of(overview, "builtin")["1 image"] == "1"


def test_how_the_network_was_trained_stands_under_the_table(session):
    assert (
        "All rows have the same weights: LeNet with `builtin`, trained for 1 epoch (235 steps of 256 images, learning"
        " rate 1, seed 0) on Test data; its test accuracy is 0.746."
    ) in inference_page.page(fill(session).records)


def test_a_missing_runtime_is_a_line_and_a_wrong_one_a_reason_in_place_of_a_time(session):
    fill(session, {"cpu_fused": {1: 0.9}})
    failed(session, "openvino", 1, "openvino is not installed: pip install --group peers")
    failed(session, "onnxruntime", 1, "wrong: logits off by 3e-02 of the largest one (may be 1e-04)", WRONG)
    page = inference_page.page(session.records)
    assert "`openvino` is not measured here: openvino is not installed: pip install --group peers." in page
    row = row_of(table(page, "## 1 image"), "onnxruntime")
    assert row["latency, µs"] == "wrong: logits off by 3e-02 of the largest one (may be 1e-04)"
    assert row["verdict"] == "–"
    assert row_of(table(page, "## Time / eager `builtin`'s time"), "onnxruntime")["1 image"] == "wrong"


def test_a_row_with_more_processors_than_threads_is_named(session):
    fill(session)
    assert "processors busy at" not in inference_page.page(session.records)
    cell(session, "onnxruntime", 256, 0.2, processors=3.9)
    page = inference_page.page(session.records)
    assert "**`onnxruntime` kept 3.9 processors busy at 256 images, where 2 threads were allowed:" in page


def test_csv_has_every_cell_unrounded(session):
    fill(session)
    failed(session, "openvino", 32, "openvino is not installed: pip install --group peers")
    rows = list(csv.DictReader(io.StringIO(inference_page.csv_page(session.records))))
    (one,) = [r for r in rows if (r["implementation"], r["batch"]) == ("onnxruntime", "1000")]
    assert float(one["latency_us"]) == pytest.approx(0.38 * 25_000)
    assert float(one["latency_low_us"]) <= float(one["latency_us"]) <= float(one["latency_high_us"])
    assert float(one["images_per_s"]) == pytest.approx(1000 / 0.0095)
    assert (one["verdict"], one["differing"], one["evaluated"], one["file_bytes"]) == ("faster", "0", "10000", "181000")
    (missing,) = [r for r in rows if r["batch"] == "32"]
    assert (missing["status"], missing["latency_us"]) == ("unavailable", "")
    assert missing["reason"].endswith("pip install --group peers")


def test_on_a_gpu_both_clocks_have_their_word(tmp_path):
    one = Session(tmp_path, device="cuda", device_name="Test GPU")
    for name, wall, device in ((AA, 1.0, 1.0), (BASELINE, 1.0, 1.0), ("triton_fused", 1.3, 0.4), ("folded", 0.8, 0.7)):
        cell(one, name, 32, wall, device_time={clock: rounds(32, device) for clock in ("cold", "graph")})
    failed(one, "onnxruntime", 32, "onnxruntime runs on the CPU only here")
    page = inference_page.page(one.records)
    paragraph = first_paragraph(page)
    assert paragraph.startswith(
        "By wall time, the host's launches included: `triton_fused` loses at 32 images. At 32 images `folded` (0.80"
    )
    assert (
        "On the device, as a replayed CUDA graph: `triton_fused` is fastest or tied at every batch size." in paragraph
    )
    overview = table(page, "## Time / eager `builtin`'s time, on the device as a CUDA graph")
    assert row_of(overview, "triton_fused")["32 images"].startswith("**0.40")
    assert "`onnxruntime` is not measured here: onnxruntime runs on the CPU only here." in page


# Among the other pages, and published


@pytest.mark.usefixtures("without_plots")
def test_the_page_is_written_where_there_are_records_and_only_there(session):
    session.step("naive")
    assert "inference.md" not in {path.name for path in report.build(session.folder)[0]}
    fill(session)
    written, digest = report.build(session.folder, session.run.id)
    assert {"inference.md", "inference.csv"} <= {path.name for path in written}
    assert "`cpu_fused` loses at 1 and 1,000 images." in digest
    assert "0.11 [0.11, 0.11] *" in digest


def test_the_report_has_a_section_with_the_finding(session):
    (section,) = inference_page.sections(fill(session).records)
    assert section.answer.startswith("`cpu_fused` loses at 1 and 1,000 images.")
    assert len(section.models) == 2


def whole(session):
    for batch, name in itertools.product(BATCHES, (AA, *kernels.names(), *deployed.names())):
        if name == "openvino":
            failed(session, name, batch, "openvino is not installed: pip install --group peers")
        else:
            cell(session, name, batch, 1.0)
    return session


def parts(records):
    return {part.name: part for part in publish.parts(records)}


def test_inference_is_published_whole_or_not_at_all(session):
    part = parts(whole(session).records)["inference of the trained network"]
    assert part.why_not() is None
    assert all(part.replaces(record) for record in session.records)
    less = [r for r in session.records if r["implementation"] != "folded" or r["key"]["batch"] != 32]
    reason = parts(less)["inference of the trained network"].why_not()
    assert reason == "incomplete, 1 measurement missing (inference of 32 with folded, ...): --resume adds them"


def test_the_main_job_is_published_without_inference(session):
    session.cell("builtin")
    assert set(parts(session.records)) == {"the main job"}
    main = parts(session.records)["the main job"]
    assert not any("inference of" in line for line in main.missing)
    inference = whole(session).records[-1]
    assert not main.replaces(inference)

"""`report.html` in a real browser: it opens by itself, sorts, filters, and is readable on a phone."""

import json
import shutil

import pytest

from bench import report
from bench.record.records import FILE, read
from bench.view import report_page
from bench.view.report_page import FILE_NAME, _html, _with_plain_ids
from tests.bench.samples import Session, fill
from tests.bench.studies.samples import add, add_trainings, epochs

MOST_BYTES = 5_000_000
FIND = """
    const found = [];
    const look = (root) => root.querySelectorAll("*").forEach((element) => {
        if (element.matches(arguments[0])) found.push(element);
        if (element.shadowRoot) look(element.shadowRoot);
    });
    look(document);
    return found;
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    session = Session(tmp_path_factory.mktemp("results") / "cpu-test-2c")
    fill(session)
    for number, name in enumerate(("naive", "compiled", "cpu_fused")):
        for pass_name in ("training forward", "inference"):
            session.cell(name, (2.0 - 0.5 * number, 0.5, 3.0), pass_name=pass_name)
    session.step("builtin")
    session.step("naive", (1.2, 1.1, 1.3))
    add_trainings(session)
    pytest.importorskip("bokeh")
    report.build(session.folder)
    return session.folder


def test_the_page_is_one_file_of_moderate_size_and_the_same_every_time(folder):
    text = (folder / FILE_NAME).read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert report.html_page(read(folder / FILE)) == text
    assert "Batch norm on Test CPU" in text
    assert '<a href="latency.md">' in text
    assert "<strong>It trains faster</strong>" in text
    assert '<a href="study-faster.md">' in text


def test_without_anything_to_show_there_is_no_page():
    pytest.importorskip("bokeh")
    assert report_page.page([], []) == ""


def test_a_study_with_too_little_for_a_chart_makes_no_page(tmp_path):
    pytest.importorskip("bokeh")
    session = Session(tmp_path / "cpu-test-2c")
    point = {"implementation": "builtin", "seed": 0, "epochs": 30}
    add(session, "faster", point, {"epochs": epochs([0.3] * 30, [0.8] * 30)})
    written = {path.name for path in report.build(session.folder)[0]}
    assert "study-faster.md" in written
    assert FILE_NAME not in written
    session.cell("builtin")
    assert FILE_NAME in {path.name for path in report.build(session.folder)[0]}


def test_names_that_differ_from_run_to_run_are_numbered():
    html = "<script>p1234</script><body>p1001 12345678-1234-1234-1234-123456789abc p1001 p12"
    assert _with_plain_ids(html) == "<script>p1234</script><body>id0 id1 id0 p12"


def test_answers_keep_their_marks_and_nothing_else_is_html():
    assert _html("`a` **b** [c](d.md) <e>") == '<code>a</code> <strong>b</strong> <a href="d.md">c</a> &lt;e&gt;'


# In a browser


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs chromium and chromedriver (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture
def opened(browser, folder):
    browser.get((folder / FILE_NAME).as_uri())
    wait_for(browser, lambda: len(rows(browser)) > 3)
    return browser


def wait_for(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 60).until(lambda _: condition())


def rows(browser):
    """The rows of the first table that are drawn, from the top."""
    found = browser.execute_script(FIND, ".bk-data-table, .slick-viewport")
    tables = browser.execute_script(FIND, ".slick-row")
    assert found is not None
    first = [row for row in tables if row.is_displayed()]
    ordered = sorted(first, key=lambda row: row.location["y"])
    return [row.text.split("\n") for row in ordered]


def test_it_opens_without_errors_and_without_anything_from_outside(opened):
    assert [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"] == []
    events = [json.loads(entry["message"])["message"] for entry in opened.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert asked
    assert all(url.startswith(("file://", "data:", "blob:")) for url in asked)
    canvases = opened.execute_script(FIND, "canvas")
    assert len(canvases) >= 3


def test_a_click_on_a_header_sorts(opened):
    header = next(h for h in opened.execute_script(FIND, ".slick-header-column") if h.text.strip() == "implementation")
    before = [row[3] for row in rows(opened)[:9]]
    header.click()
    wait_for(opened, lambda: [row[3] for row in rows(opened)[:9]] != before)
    after = [row[3] for row in rows(opened)[:9]]
    assert after == sorted(after, reverse=after[0] > after[-1])


def test_words_filter_the_rows(opened):
    field = opened.execute_script(FIND, "input[type=text]")[0]
    everything = len(rows(opened))
    field.send_keys("cpu_fused inference")
    wait_for(opened, lambda: len(rows(opened)) < everything)
    latency = [row for row in rows(opened) if row[0].count("x")]
    assert [(row[3], row[2]) for row in latency] == [("cpu_fused", "inference")]


def test_on_a_phone_nothing_is_wider_than_the_screen(opened):
    size = opened.get_window_size()
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        wait_for(opened, lambda: opened.execute_script("return document.documentElement.scrollWidth") <= 390)
        assert opened.execute_script("return parseFloat(getComputedStyle(document.body).fontSize)") >= 16
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        opened.set_window_size(size["width"], size["height"])

"""`report.html`: one file that works offline, with the tables to sort and filter, and the plots with values on hover.

Bokeh draws the charts and the tables, and its scripts are in the file; the frame is a Jinja template.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from bench.record.labels import BASELINE, row_order
from bench.record.operations import BOTH
from bench.record.records import FILE, OK, Record
from bench.record.runs import newest
from bench.record.verdicts import Verdicts
from bench.view import latency_plots, profile_tables, roofline_tables, step_tables, tables, training_plots
from bench.view import report_charts as charts
from bench.view.charts import Chart
from bench.view.latency_tables import grouped, largest_error, time_ns
from bench.view.trainings import examples_per_second, last_mean

FILE_NAME = "report.html"
NAMES = re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b|\bp\d{4,}\b")
"""What Bokeh calls documents and models."""

TEMPLATE = """\
{% from macros import embed %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
{{ bokeh_css }}
{{ bokeh_js }}
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2328; margin: 0 auto; max-width: 72rem; padding: 0 1rem 3rem; }
h1 { line-height: 1.2; }
pre { overflow-x: auto; background: #f6f8fa; padding: 1rem; font-size: .8rem; }
.chart { margin: 1rem 0 2rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
<p>Measured {{ measured }}. {{ links }}</p>
{% for section in sections %}
<h2>{{ section.title }}</h2>
<p>{{ section.answer }}</p>
{% for name in section.names %}
<div class="chart">{{ embed(roots[name]) }}</div>
{% endfor %}
{% endfor %}
<h2>Conditions</h2>
<pre>{{ conditions }}</pre>
{{ plot_script }}
</body>
</html>
"""


class Section:
    """A heading, an answer, and what Bokeh draws below it."""

    def __init__(self, title: str, answer: str, models: Sequence[Any]) -> None:
        self.title, self.answer, self.models = title, _html(answer), list(models)
        self.names = [model.name for model in models]


class Study(NamedTuple):
    """What is shown of a study: its question, its answer in Markdown, and its charts by name."""

    question: str
    answer: str
    charts: Mapping[str, Chart]


def page(kinds: Mapping[str, list[Record]], studies: Iterable[Study] = ()) -> str:
    """The whole file; empty without records that it could show.

    Args:
        kinds: By kind, records that may share a table.
        studies: Those that have an answer.
    """
    from bokeh.embed import file_html
    from bokeh.resources import INLINE
    from jinja2 import Template

    latency, steps, epochs, profiles = (kinds.get(kind, []) for kind in ("latency", "step", "epoch", "profile"))
    sections = [
        *_latency(latency),
        *_steps(steps),
        *_training(epochs),
        *_profile(profiles),
        *_roofline(latency),
        *(Section(s.question, s.answer, [charts.lines(*chart) for chart in s.charts.items()]) for s in studies),
    ]
    models = [model for section in sections for model in section.models]
    if not models:
        return ""
    shown = [*latency, *steps, *epochs, *profiles, *kinds.get("study", [])]
    last = newest(shown)
    pages = [
        f"[{name}]({name})" for name in ("latency.md", "step.md", "training.md", "profile.md", "roofline.md", FILE)
    ]
    variables = {
        "sections": sections,
        "measured": last["time"][:10],
        "links": _html(f"The same as pages: {tables.listed(pages)}."),
        "conditions": escape(tables.conditions(shown).partition("\n\n")[2]),
    }
    title = f"Batch norm on {last['conditions']['device_name']}"
    html: str = file_html(models, INLINE, title, template=Template(TEMPLATE), template_variables=variables)
    return _with_plain_ids(html)


def _latency(records: list[Record]) -> list[Section]:
    good = sorted((r for r in records if r["status"] == OK), key=row_order)
    if not good:
        return []
    verdicts = Verdicts(records)
    rows = [
        {
            "shape": r["key"]["shape"],
            "operation": r["key"]["operation"],
            "pass": r["key"]["pass"],
            "implementation": r["implementation"],
            "time, µs": round(time_ns(r) / 1e3, 2),
            "ratio": round(r["ratio"][0], 3),
            "low": round(r["ratio"][1], 3),
            "high": round(r["ratio"][2], 3),
            "verdict": verdicts.of(r),
            "share of copy": round(r["copy_ns"] / time_ns(r), 3),
            "error": float(f"{largest_error(r):.1e}"),
        }
        for _, _, _, group in grouped(good)
        for r in group
    ]
    models = [*charts.table("latency", rows)]
    wanted = ("block", BOTH)
    if ratios := [r for r in rows if (r["operation"], r["pass"]) == wanted and r["implementation"] != BASELINE]:
        models.insert(0, charts.ratios(ratios))
    return [Section("Latency", latency_plots.sentence(records), models)]


def _steps(records: list[Record]) -> list[Section]:
    done, verdicts = step_tables.by_implementation(records), Verdicts(records)
    if not done:
        return []
    rows = [
        {
            "implementation": name,
            "step, ms": round(time_ns(r) / 1e6, 3),
            "ratio": round(r["ratio"][0], 3),
            "low": round(r["ratio"][1], 3),
            "high": round(r["ratio"][2], 3),
            "verdict": verdicts.of(r),
            "ran as": r["backend"],
        }
        for name, r in done.items()
    ]
    return [Section("One training step", step_tables.sentence(records), charts.table("step", rows))]


def _training(records: list[Record]) -> list[Section]:
    groups = training_plots.shown(records)
    if not groups:
        return []
    rows = [
        {
            "implementation": name,
            "seeds": len(ts),
            "train loss": round(sum(t.series("train_loss")[-1] for t in ts) / len(ts), 4),
            "test acc, last 5": round(sum(map(last_mean, ts)) / len(ts), 4),
            "examples/sec": round(examples_per_second(ts, "step_seconds")),
        }
        for name, ts in groups.items()
    ]
    curves = [
        charts.lines(name.removesuffix(".svg"), chart)
        for name, draw in training_plots.CHARTS.items()
        if (chart := draw(records))
    ]
    return [Section("Training", training_plots.sentence(records), [*curves, *charts.table("training", rows)])]


def _profile(records: list[Record]) -> list[Section]:
    steps = profile_tables.done(profile_tables.profiles(records, "step"))
    if not steps:
        return []
    return [Section("Where the time goes", profile_tables.sentence(steps), [charts.parts(profile_tables.bars(steps))])]


def _roofline(records: list[Record]) -> list[Section]:
    if not (both := roofline_tables.plotted(records)):
        return []
    return [Section("Roofline", roofline_tables.sentence(records), [charts.roofline(both)])]


def _html(text: str) -> str:
    """Markdown as the answers use it: code, bold and links."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    text = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r'<a href="\2">\1</a>', text)


def _with_plain_ids(html: str) -> str:
    """The same records make the same bytes: Bokeh's random and counting names become numbers in order of appearance."""
    found: dict[str, str] = {}

    def plain(match: re.Match[str]) -> str:
        return found.setdefault(match.group(), f"id{len(found)}")

    # Bokeh's own scripts come first, and are to stay as they are.
    head, mark, body = html.partition("<body>")
    return head + mark + NAMES.sub(plain, body)

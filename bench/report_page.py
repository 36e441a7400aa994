"""`report.html`: one file that works offline, with the tables to sort and filter, and the plots with values on hover.

Bokeh draws the charts and the tables, and its scripts are in the file; the frame is a Jinja template.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from typing import Any

from bench import latency_plots, profile_tables, roofline_tables, step_tables, tables, training_plots
from bench.latency_tables import floors, grouped, largest_error, row_order, time_ns, verdict_of
from bench.records import FILE, OK, Record, latest
from bench.roster import BASELINE
from bench.trainings import examples_per_second, last_mean

FILE_NAME = "report.html"
PALETTE = ("#1f2328", "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#6b4a2b")
"""Okabe & Ito's, as in `bench/plots.py`; names, legends and hover say the same without colour."""

HEIGHT = 420
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


def page(records: list[Record]) -> str:
    """The whole file; empty without records that it could show.

    Args:
        records: All of a machine's folder.
    """
    from bokeh.embed import file_html
    from bokeh.resources import INLINE
    from jinja2 import Template

    newest = latest(records)
    kinds = {kind: [r for r in newest if r["kind"] == kind] for kind in ("latency", "step", "profile")}
    epochs = [r for r in records if r["kind"] == "epoch"]
    sections = [
        *_latency(kinds["latency"]),
        *_steps(kinds["step"]),
        *_training(epochs),
        *_profile(kinds["profile"]),
        *_roofline(kinds["latency"]),
    ]
    if not sections:
        return ""
    last = records[-1]
    shown = [r for those in kinds.values() for r in those] + epochs
    pages = [
        f"[{name}]({name})" for name in ("latency.md", "step.md", "training.md", "profile.md", "roofline.md", FILE)
    ]
    variables = {
        "sections": sections,
        "measured": last["time"][:10],
        "links": _html(f"The same as pages: {tables.listed(pages)}."),
        "conditions": escape(tables.conditions(shown).partition("\n\n")[2]),
    }
    models = [model for section in sections for model in section.models]
    title = f"Batch norm on {last['conditions']['device_name']}"
    html: str = file_html(models, INLINE, title, template=Template(TEMPLATE), template_variables=variables)
    return _with_plain_ids(html)


def _latency(records: list[Record]) -> list[Section]:
    good = sorted((r for r in records if r["status"] == OK), key=row_order)
    if not good:
        return []
    identical = floors(records)
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
            "verdict": verdict_of(r, identical),
            "share of copy": round(r["copy_ns"] / time_ns(r), 3),
            "error": float(f"{largest_error(r):.1e}"),
        }
        for _, _, _, group in grouped(good)
        for r in group
    ]
    models = [*_table("latency", rows)]
    wanted = ("block", latency_plots.BOTH)
    if ratios := [r for r in rows if (r["operation"], r["pass"]) == wanted and r["implementation"] != BASELINE]:
        models.insert(0, _ratios(ratios))
    return [Section("Latency", latency_plots.sentence(records), models)]


def _ratios(rows: list[dict[str, Any]]) -> Any:
    """Ratios with whiskers around the baseline."""
    from bokeh.models import ColumnDataSource, Span, Whisker
    from bokeh.plotting import figure

    labels = [f"{row['shape']} {row['implementation']}" for row in rows]
    source = ColumnDataSource({name: [row[name] for row in rows] for name in rows[0]} | {"row": labels})
    chart = figure(
        name="ratios",
        title="Blocks, time / builtin's\nforward + backward; left: faster",
        y_range=labels[::-1],
        x_axis_type="log",
        height=max(HEIGHT // 2, 24 * len(rows)),
        sizing_mode="stretch_width",
        tools="hover,save",
        tooltips=[("", "@row"), ("ratio", "@ratio [@low, @high]"), ("verdict", "@verdict"), ("time", "@{time, µs} µs")],
    )
    chart.scatter("ratio", "row", source=source, size=9, color=PALETTE[1])
    chart.add_layout(Whisker(source=source, base="row", lower="low", upper="high", dimension="width"))
    chart.add_layout(Span(location=1, dimension="height", line_dash="dashed"))
    return chart


def _steps(records: list[Record]) -> list[Section]:
    done = step_tables.by_implementation(records)
    if not done:
        return []
    rows = [
        {
            "implementation": name,
            "step, ms": round(time_ns(r) / 1e6, 3),
            "ratio": round(r["ratio"][0], 3),
            "low": round(r["ratio"][1], 3),
            "high": round(r["ratio"][2], 3),
            "ran as": r["backend"],
        }
        for name, r in sorted(done.items(), key=lambda item: row_order(item[1]))
    ]
    group = [r for r in records if r["key"]["images"] == next(iter(done.values()))["key"]["images"]]
    return [Section("One training step", step_tables.sentence(group), _table("step", rows))]


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
        _curves(name, title, training_plots.over_epochs(groups, figure))
        for name, title, figure in (
            ("train-loss", "Train loss over epochs", "train_loss"),
            ("test-accuracy", "Test accuracy over epochs", "test_accuracy"),
        )
    ]
    return [Section("Training", training_plots.sentence(records), [*curves, *_table("training", rows)])]


def _curves(name: str, title: str, series: dict[str, list[training_plots.Point]]) -> Any:
    """A line per implementation with values on hover; a click on its name hides it."""
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure

    chart = figure(
        name=name,
        title=f"{title}\nmean of the seeds; click a name to hide it",
        height=HEIGHT,
        sizing_mode="stretch_width",
        tools="hover,save",
        tooltips=[("", "$name"), ("epoch", "@x"), ("mean", "@y{0.000} [@low{0.000}, @high{0.000}]")],
    )
    for number, (implementation, points) in enumerate(series.items()):
        columns = dict(zip(("x", "y", "low", "high"), map(list, zip(*points, strict=True)), strict=True))
        source, colour = ColumnDataSource(columns), PALETTE[number % len(PALETTE)]
        chart.line("x", "y", source=source, name=implementation, color=colour, width=2, legend_label=implementation)
        chart.scatter("x", "y", source=source, name=implementation, color=colour, size=6, legend_label=implementation)
    chart.legend.click_policy = "hide"
    return chart


def _profile(records: list[Record]) -> list[Section]:
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure

    steps = profile_tables.done(profile_tables.newest(records, "step"))
    if not steps:
        return []
    bars = profile_tables.bars(steps)
    parts = list(dict.fromkeys(part for bar in bars.values() for part in bar))
    chart = figure(
        name="parts",
        title="Parts of a training step, ms",
        y_range=list(bars)[::-1],
        height=HEIGHT,
        sizing_mode="stretch_width",
        tools="hover,save",
        tooltips=[("", "@name"), ("$name", "@$name{0.00} ms")],
    )
    columns = {"name": list(bars)} | {part: [bar.get(part, 0.0) for bar in bars.values()] for part in parts}
    colours = [PALETTE[number % len(PALETTE)] for number in range(1, len(parts) + 1)]
    hatches = ["blank", "blank", "/", ".", "\\", "blank", "x", "-", "|", "+", "o"][: len(parts)]
    chart.hbar_stack(
        parts,
        y="name",
        height=0.7,
        color=colours,
        source=ColumnDataSource(columns),
        legend_label=parts,
        hatch_pattern=hatches,
        hatch_color="white",
        hatch_alpha=0.5,
    )
    chart.add_layout(chart.legend[0], "below")
    chart.legend.orientation = "horizontal"
    chart.legend.ncols = 4
    return [Section("Where the time goes", profile_tables.sentence(steps), [chart])]


def _roofline(records: list[Record]) -> list[Section]:
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure

    both = roofline_tables.plotted(records)
    if not both:
        return []
    chart = figure(
        name="roofline",
        title="Bandwidth of batch norm, forward + backward\nbelow that of a plain copy",
        x_axis_type="log",
        y_axis_type="log",
        x_axis_label="fewest bytes that can move, MB",
        y_axis_label="GB/s",
        height=HEIGHT,
        sizing_mode="stretch_width",
        tools="hover,save",
        tooltips=[("", "$name"), ("shape", "@shape"), ("moves", "@x{0.00} MB"), ("bandwidth", "@y{0.0} GB/s")],
    )
    by_name: dict[str, list[Record]] = {}
    for record in sorted(both, key=row_order):
        by_name.setdefault(record["implementation"], []).append(record)
    for number, (name, those) in enumerate(by_name.items()):
        columns = {
            "x": [r["bytes_minimum"] / 1e6 for r in those],
            "y": [r["bytes_minimum"] / time_ns(r) for r in those],
            "shape": [f"{r['key']['shape']} {r['key']['operation']}" for r in those],
        }
        colour = PALETTE[number % len(PALETTE)]
        chart.scatter("x", "y", source=ColumnDataSource(columns), name=name, color=colour, size=8, legend_label=name)
    ceiling = sorted({(r["bytes_minimum"] / 1e6, r["bytes_minimum"] / r["copy_ns"]) for r in both})
    chart.line([x for x, _ in ceiling], [y for _, y in ceiling], name="memory copy", legend_label="memory copy")
    chart.legend.location = "bottom_right"
    return [Section("Roofline", roofline_tables.sentence(records), [chart])]


def _table(name: str, rows: list[dict[str, Any]]) -> list[Any]:
    """A table that sorts by a click on a header, below a field that filters its rows by the words in it."""
    from bokeh.models import CDSView, ColumnDataSource, CustomJS, CustomJSFilter, DataTable, TableColumn, TextInput

    source = ColumnDataSource({column: [row[column] for row in rows] for column in rows[0]})
    field = TextInput(name=f"{name}-filter", title="Show rows with all of these words", sizing_mode="stretch_width")
    wanted = CustomJSFilter(
        args={"field": field},
        code="""
            const words = field.value_input.toLowerCase().split(/\\s+/).filter(Boolean);
            const columns = Object.values(source.data);
            const kept = [];
            for (let i = 0; i < source.get_length(); i++) {
                const row = columns.map((column) => String(column[i]).toLowerCase()).join(" ");
                kept.push(words.every((word) => row.includes(word)));
            }
            return kept;
        """,
    )
    field.js_on_change("value_input", CustomJS(args={"source": source}, code="source.change.emit()"))
    table = DataTable(
        name=f"{name}-table",
        source=source,
        view=CDSView(filter=wanted),
        columns=[TableColumn(field=column, title=column, width=_width(column, rows)) for column in rows[0]],
        autosize_mode="none",  # on a phone it scrolls sideways, in place of columns too narrow to read
        height=min(HEIGHT, 30 * len(rows) + 40),
        sizing_mode="stretch_width",
        index_position=None,
    )
    return [field, table]


def _width(column: str, rows: list[dict[str, Any]]) -> int:
    """Pixels that its longest text needs."""
    return 24 + 7 * max(len(str(text)) for text in [column, *(row[column] for row in rows)])


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

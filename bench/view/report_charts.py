"""The charts and tables of `report.html`, drawn by Bokeh."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from bench.record.clocks import on_gpu
from bench.record.labels import row_order
from bench.record.operations import Operation, operation_of
from bench.record.records import Record
from bench.record.verdicts import Verdicts
from bench.view.charts import Chart
from bench.view.colors import OTHER_VERDICT, VERDICTS, fills, looks
from bench.view.latency_tables import time_ns

MARKERS = {
    "o": "circle",
    "s": "square",
    "^": "triangle",
    "D": "diamond",
    "v": "inverted_triangle",
    "P": "plus",
    "X": "x",
    "p": "hex",
    "*": "star",
    "<": "triangle",
    ">": "inverted_triangle",
}
HATCHES = {"": "blank", "///": "/", "---": "-", "\\" * 3: "\\", "xxx": "x", "||||": "|", "++++": "+"}
"""What Bokeh calls those of `bench/view/colors.py`."""

HEIGHT, MOST_TICKS = 420, 10
LEGEND_CHARACTERS, TITLE_CHARACTERS = 36, 44
"""In a line on a phone."""

RATIOS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)


def figures(
    verdicts: Verdicts, record: Record, time: str = "time, µs", nanoseconds: float = 1e3, digits: int = 2
) -> dict[str, Any]:
    """Of a table: time, ratio with its ends and verdict by the clock of the verdicts; empty texts where it has none.

    Args:
        verdicts: By that clock.
        record: Of a latency or a step.
        time: Header of the time, with the unit.
        nanoseconds: In that unit.
        digits: Of the time, behind the point.
    """
    clock = verdicts.clock
    ratio, took = clock.ratio(record), clock.time_ns(record)
    if ratio is None or took is None:
        return dict.fromkeys((time, "ratio", "low", "high", "verdict"), "")
    return {
        time: round(took / nanoseconds, digits),
        "ratio": round(ratio.value, 3),
        "low": round(ratio.low, 3),
        "high": round(ratio.high, 3),
        "verdict": verdicts.of(record),
    }


def second_figures(all_verdicts: Sequence[Verdicts], record: Record, *unit: Any) -> dict[str, Any]:
    """The same of other clocks, whose words begin the headers."""
    return {f"{by.clock.word} {name}": cell for by in all_verdicts for name, cell in figures(by, record, *unit).items()}


def ratios(name: str, title: str, verdicts: Verdicts, records: list[Record]) -> Any:
    """Ratios of forward + backward with whiskers around the baseline.

    Args:
        name: Of the chart.
        title: Above it.
        verdicts: By the clock whose ratios are shown.
        records: A row each.
    """
    from bokeh.models import ColumnDataSource, Span, Whisker
    from bokeh.plotting import figure

    keys = ({"block": _block(r), "implementation": r["implementation"]} for r in records)
    rows = [key | figures(verdicts, record) for key, record in zip(keys, records, strict=True)]
    labels = [f"{row['block']} {row['implementation']}" for row in rows]
    source = ColumnDataSource({column: [row[column] for row in rows] for column in rows[0]} | {"row": labels})
    chart = figure(
        name=name,
        title=f"{title}\nforward + backward; left: faster",
        y_range=labels[::-1],
        x_range=(min(row["low"] for row in rows) / 1.1, max(row["high"] for row in rows) * 1.1),
        x_axis_type="log",
        height=max(HEIGHT // 2, 24 * len(rows)),
        sizing_mode="stretch_width",
        tools="hover,save",
        tooltips=[("", "@row"), ("ratio", "@ratio [@low, @high]"), ("verdict", "@verdict"), ("time", "@{time, µs} µs")],
    )
    _plain_ticks(chart.xaxis, log=True, values=RATIOS)
    looks_of = [VERDICTS.get(row["verdict"], OTHER_VERDICT) for row in rows]
    source.data["marker"], source.data["color"] = [MARKERS[m] for m, _ in looks_of], [c for _, c in looks_of]
    chart.scatter("ratio", "row", source=source, size=9, color="color", marker="marker")
    chart.add_layout(Whisker(source=source, base="row", lower="low", upper="high", dimension="width"))
    chart.add_layout(Span(location=1, dimension="height", line_dash="dashed"))
    return chart


def _block(record: Record) -> str:
    """Its shape; with what it is, where that isn't a block of LeNet's kind."""
    operation = operation_of(record["key"])
    lenets = operation == Operation(operation.shape, "block")
    return operation.shape_text if lenets else operation.name


def lines(name: str, chart: Chart) -> Any:
    """A line per series with values on hover; a click on its name hides it."""
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure

    banded = any(len(point) > 2 for points in chart.series.values() for point in points)
    below = "means of the seeds; click a name to hide it" if banded else "click a name to hide it"
    drawn = figure(
        name=name,
        title=f"{textwrap.fill(chart.title, TITLE_CHARACTERS)}\n{below}",
        x_axis_label=chart.x_label,
        y_axis_label=chart.y_label,
        x_axis_type="log" if chart.log_x else "linear",
        y_axis_type="log" if chart.log_y else "linear",
        height=HEIGHT,
        sizing_mode="stretch_width",
        tools="hover,save",
        tooltips=[
            ("", "$name"),
            (chart.x_label, "@x"),
            (chart.y_label, "@y{0.0000} [@low{0.0000}, @high{0.0000}]" if banded else "@y{0.0000}"),
        ],
    )
    for label, look in looks(chart.series, chart.dashed).items():
        points = zip(*chart.series[label], strict=True)
        columns = dict(zip(("x", "y", "low", "high"), map(list, points), strict=False))
        line = {"source": ColumnDataSource(columns), "name": label, "color": look.color, "legend_label": label}
        drawn.line("x", "y", width=2, line_dash="dashed" if look.line == "--" else "solid", **line)
        drawn.scatter("x", "y", size=7, marker=MARKERS[look.marker], **line)
    values = sorted({point[0] for points in chart.series.values() for point in points})
    _plain_ticks(drawn.xaxis, log=chart.log_x, values=values)
    _plain_ticks(drawn.yaxis, log=chart.log_y)
    drawn.legend.click_policy = "hide"
    _legend_below(drawn)
    return drawn


def parts(bars: dict[str, dict[str, float]]) -> Any:
    """A bar per implementation, its parts stacked, milliseconds on hover."""
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure

    names = list(dict.fromkeys(part for bar in bars.values() for part in bar))
    chart = figure(
        name="parts",
        title="Parts of a training step, ms",
        y_range=list(bars)[::-1],
        height=HEIGHT,
        sizing_mode="stretch_width",
        tools="hover,save",
        tooltips=[("", "@name"), ("$name", "@$name{0.00} ms")],
    )
    columns = {"name": list(bars)} | {part: [bar.get(part, 0.0) for bar in bars.values()] for part in names}
    looks_of = fills(names)
    chart.hbar_stack(
        names,
        y="name",
        height=0.7,
        color=[looks_of[part]["facecolor"] for part in names],
        source=ColumnDataSource(columns),
        legend_label=names,
        hatch_pattern=[HATCHES[looks_of[part]["hatch"]] for part in names],
        hatch_color="white",
        hatch_alpha=0.5,
    )
    _legend_below(chart)
    return chart


def roofline(records: list[Record]) -> Any:
    """Bandwidth over bytes, with that of a copy above."""
    from bokeh.models import ColumnDataSource
    from bokeh.plotting import figure

    chart = figure(
        name="roofline",
        title="Bandwidth of batch norm, forward + backward\nbelow that of a plain copy",
        x_axis_type="log",
        y_axis_type="log",
        x_axis_label="fewest bytes that can move, MB",
        y_axis_label="GB/s by wall time" if on_gpu(records) else "GB/s",
        height=HEIGHT,
        sizing_mode="stretch_width",
        tools="hover,save",
        tooltips=[("", "$name"), ("shape", "@shape"), ("moves", "@x{0.00} MB"), ("bandwidth", "@y{0.0} GB/s")],
    )
    by_name: dict[str, list[Record]] = {}
    for record in sorted(records, key=row_order):
        by_name.setdefault(record["implementation"], []).append(record)
    for name, look in looks(by_name).items():
        those = by_name[name]
        columns = {
            "x": [r["bytes_minimum"] / 1e6 for r in those],
            "y": [r["bytes_minimum"] / time_ns(r) for r in those],
            "shape": [operation_of(r["key"]).name for r in those],
        }
        line = {"source": ColumnDataSource(columns), "name": name, "color": look.color, "legend_label": name}
        chart.scatter("x", "y", size=8, marker=MARKERS[look.marker], **line)
    ceiling = sorted({(r["bytes_minimum"] / 1e6, r["bytes_minimum"] / r["copy_ns"]) for r in records})
    chart.line([x for x, _ in ceiling], [y for _, y in ceiling], name="memory copy", legend_label="memory copy")
    _plain_ticks(chart.xaxis, log=True)
    _plain_ticks(chart.yaxis, log=True)
    _legend_below(chart)
    return chart


def table(name: str, rows: list[dict[str, Any]]) -> list[Any]:
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


def _legend_below(chart: Any) -> None:
    """Where it covers no data, in as many columns as a phone has room for."""
    legend = chart.legend[0]
    columns = max(1, min(3, LEGEND_CHARACTERS // max(len(item.label.value) for item in legend.items)))
    chart.add_layout(legend, "below")
    legend.update(orientation="horizontal", ncols=columns)
    chart.height += 22 * math.ceil(len(legend.items) / columns)


def _plain_ticks(axis: Any, *, log: bool, values: Sequence[float] = ()) -> None:
    """Numbers without exponents; on a logarithmic axis at the values themselves where they are few."""
    from bokeh.models import FixedTicker, LogTicker, NumeralTickFormatter

    axis.formatter = NumeralTickFormatter(format="0,0.[0000000]")
    if log:
        few = 0 < len(values) <= MOST_TICKS
        axis.ticker = FixedTicker(ticks=list(values)) if few else LogTicker(mantissas=[1, 2, 5], desired_num_ticks=6)


def _width(column: str, rows: list[dict[str, Any]]) -> int:
    """Pixels that its longest text needs."""
    return 24 + 7 * max(len(str(text)) for text in [column, *(row[column] for row in rows)])

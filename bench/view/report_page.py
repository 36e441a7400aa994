"""`report.html`: one file that works offline, with the tables to sort and filter, and the plots with values on hover.

Bokeh draws the charts and the tables, and its scripts are in the file; the frame is a Jinja template.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from bench.record.records import FILE, Record
from bench.record.runs import newest
from bench.view import tables
from bench.view.page import Section

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


def page(sections: Sequence[Section], records: list[Record]) -> str:
    """The whole file; empty where nothing would be drawn.

    Args:
        sections: From the top.
        records: All that is shown.
    """
    from bokeh.embed import file_html
    from bokeh.resources import INLINE
    from jinja2 import Template

    models = [model for section in sections for model in section.models]
    if not models:
        return ""
    last = newest(records)
    pages = [
        f"[{name}]({name})" for name in ("latency.md", "step.md", "training.md", "profile.md", "roofline.md", FILE)
    ]
    variables = {
        "sections": [
            {"title": s.title, "answer": _html(s.answer), "names": [model.name for model in s.models]} for s in sections
        ],
        "measured": last["time"][:10],
        "links": _html(f"The same as pages: {tables.listed(pages)}."),
        "conditions": escape(tables.conditions(records).partition("\n\n")[2]),
    }
    title = f"Batch norm on {last['conditions']['device_name']}"
    html: str = file_html(models, INLINE, title, template=Template(TEMPLATE), template_variables=variables)
    return _with_plain_ids(html)


def _html(text: str) -> str:
    """Markdown as the answers use it: code, bold and links."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    text = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r'<a href="\2">\1</a>', text)


def _with_plain_ids(html: str) -> str:
    """The same records make the same bytes: Bokeh's random and counting names become numbers in order of appearance."""
    numbered: dict[str, str] = {}

    def plain(match: re.Match[str]) -> str:
        return numbered.setdefault(match.group(), f"id{len(numbered)}")

    # Bokeh's own scripts come first, and are to stay as they are.
    head, mark, body = html.partition("<body>")
    return head + mark + NAMES.sub(plain, body)

"""Pages of feedback: one for each learner, and an overview for the instructor. No scripts, nothing from elsewhere."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path

from mlmkit.grading.judge import Mark
from mlmkit.grading.tasks import task_order

STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; --good: #1a7f37; --bad: #a04100; --link: #0550ae; }
@media (prefers-color-scheme: dark) { :root { --good: #4ac26b; --bad: #f0a35e; --link: #7db7ff; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem;
  overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .8rem; }
h2 .points, h3 .points { float: right; margin-left: 1rem; font-variant-numeric: tabular-nums; }
a { color: var(--link); }
article { border: 1px solid var(--line); border-left: .3rem solid var(--bad); border-radius: .3rem; margin: .6rem 0;
  padding: .5rem .9rem; }
article.passed { border-left-color: var(--good); padding-block: .35rem; }
article h3 { font-size: 1rem; margin: 0; } article p { margin: .4rem 0; }
.sign { color: var(--bad); font-weight: 700; } .passed .sign { color: var(--good); }
.why { opacity: .85; } .cause { background: var(--soft); padding: .4rem .7rem; border-radius: .3rem; }
code, pre { font: .875em/1.45 ui-monospace, monospace; }
code { background: var(--soft); padding: .1em .3em; border-radius: .2rem; }
pre { white-space: pre-wrap; background: var(--soft); padding: .45rem .7rem; margin: 0; border-radius: .3rem; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .35rem .9rem; margin: .5rem 0; }
dt { padding-top: .3rem; opacity: .85; } dd { margin: 0; }
table { border-collapse: collapse; } td, th { padding: .25rem 1.2rem .25rem 0; text-align: left; }
tr + tr td { border-top: 1px solid var(--line); }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { width: 8rem; padding-right: 0; }
.bar span { display: block; height: .6rem; border-radius: .2rem;
  background: linear-gradient(90deg, var(--good) var(--share), var(--soft) var(--share)); }
footer { margin-top: 3rem; font-size: .85rem; opacity: .8; }
"""

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ title }}</title><style>{{ style }}</style></head>
<body><main>{% block main %}{% endblock %}</main></body></html>"""

LEARNER = """{% extends "page" %}{% block main %}
<h1>{{ learner }}: {{ "%g"|format(points) }} of {{ of }} points</h1>
<p>{{ passed }} of {{ tasks }} tasks passed{% if open %}. Open:
{% for mark in open %}<a href="#{{ mark.task_id }}">{{ mark.task_id }}</a>{{ ", " if not loop.last }}{% endfor %}
{% endif %}</p>
{% for name, marks in sets %}
<h2>{{ name }}
<span class="points">{{ "%g"|format(marks|sum(attribute="points")) }} of {{ marks|sum(attribute="of") }}</span></h2>
{% for mark in marks %}
<article id="{{ mark.task_id }}" class="{{ 'passed' if mark.verdict.passed else 'open' }}">
<h3><span class="sign">{{ "✓" if mark.verdict.passed else "✗" }}</span> {{ mark.task_id }} {{ mark.title }}
<span class="points">{{ "%g"|format(mark.points) }} / {{ mark.of }}</span></h3>
{% if not mark.verdict.passed or mark.verdict.problem %}<p><strong>{{ mark.verdict.status }}</strong>
{%- if mark.verdict.problem %}: {{ mark.verdict.problem|html }}{% endif %}</p>{% endif %}
{% if mark.verdict.cause %}
<p class="cause"><strong>Likely cause</strong>: {{ mark.verdict.cause|html }}</p>{% endif %}
{% if mark.verdict.why %}<p class="why">{{ mark.verdict.why|html }}</p>{% endif %}
{% if mark.verdict.inputs or mark.verdict.expected or mark.verdict.got %}<dl>
{% for name, text in [("input", mark.verdict.inputs), ("expected", mark.verdict.expected), ("got", mark.verdict.got)] %}
{% if text %}<dt>{{ name }}</dt><dd><pre>{{ text.strip() }}</pre></dd>{% endif %}{% endfor %}</dl>{% endif %}
{% if mark.hint %}<p><strong>Hint</strong>: {{ mark.hint|html }}</p>{% endif %}
</article>
{% endfor %}{% endfor %}
<footer>Ran for {{ "%.1f"|format(seconds) }} s. Seed {{ seed }}. {{ protections }}</footer>
{% endblock %}"""

OVERVIEW = """{% extends "page" %}{% block main %}
<h1>{{ rows|length }} learner{{ "s" if rows|length != 1 }}</h1>
<table><tr><th>learner</th><th class="n">points</th><th class="n">of</th><th class="n">tasks passed</th><th></th></tr>
{% for row in rows %}<tr><td><a href="{{ row.page }}">{{ row.learner }}</a></td>
<td class="n">{{ "%g"|format(row.points) }}</td><td class="n">{{ row.of }}</td>
<td class="n">{{ row.passed }} / {{ row.tasks }}</td>{{ bar(row.points / row.of if row.of else 0) }}</tr>
{% endfor %}</table>
<h2>Tasks</h2>
<table><tr><th>task</th><th></th><th class="n">passed by</th><th></th></tr>
{% for row in tasks %}<tr><td>{{ row.id }}</td><td>{{ row.title }}</td>
<td class="n">{{ "%.0f"|format(100 * row.share) }} %</td>{{ bar(row.share) }}</tr>
{% endfor %}</table>
<footer>Seed {{ seed }}. {{ protections }}</footer>
{% endblock %}"""


def in_html(text: str) -> str:
    """A sentence for a page: its tags are text, and what stands between backticks is code.

    >>> in_html("`a < b` is <b>")
    '<code>a &lt; b</code> is &lt;b&gt;'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _bar(share: float) -> str:
    """A cell of a table with a bar."""
    return f'<td class="bar"><span style="--share: {100 * share:.0f}%"></span></td>'


def write_pages(marks: Sequence[Mark], out: Path, protections: str, seed: int) -> list[Path]:
    """Write `feedback/LEARNER.html` for each learner, and `index.html`.

    Args:
        marks: of all learners.
        out: folder.
        protections: the walls behind which the submissions ran, in words.
        seed: of the random inputs.
    """
    from jinja2 import DictLoader, Environment
    from markupsafe import Markup

    environment = Environment(
        loader=DictLoader({"page": PAGE, "learner": LEARNER, "overview": OVERVIEW}), autoescape=True
    )
    environment.filters["html"] = lambda text: Markup(in_html(text))
    environment.globals["bar"] = lambda share: Markup(_bar(share))
    common = {"style": STYLE, "seed": seed, "protections": protections}
    folder = out / "feedback"
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, object]] = []
    by_learner = {
        learner: list(group)
        for learner, group in groupby(sorted(marks, key=lambda mark: mark.learner), key=lambda mark: mark.learner)
    }
    pages = [folder / f"{name}.html" for name in _file_names(list(by_learner))]
    for page, (learner, group) in zip(pages, by_learner.items(), strict=True):
        own = sorted(group, key=lambda mark: (mark.set_name, task_order(mark.task_id)))
        points, of = sum(mark.points for mark in own), sum(mark.of for mark in own)
        still = [mark for mark in own if not mark.verdict.passed]
        row = {"learner": learner, "points": points, "of": of, "passed": len(own) - len(still), "tasks": len(own)}
        text = environment.get_template("learner").render(
            common,
            **row,
            title=f"Feedback for {learner}",
            open=still,
            sets=[(name, list(part)) for name, part in groupby(own, key=lambda mark: mark.set_name)],
            seconds=sum(mark.seconds for mark in own),
        )
        page.write_text(text, encoding="utf-8")
        rows.append({**row, "page": page.relative_to(out).as_posix()})
    overview = environment.get_template("overview").render(common, title="Marks", rows=rows, tasks=_by_task(marks))
    (out / "index.html").write_text(overview, encoding="utf-8")
    return pages


def _by_task(marks: Sequence[Mark]) -> list[dict[str, object]]:
    """How many passed each task: what a class has not understood shows here."""
    rows = []
    for task, group in groupby(sorted(marks, key=lambda mark: mark.task_id), key=lambda mark: mark.task_id):
        own = list(group)
        share = sum(mark.verdict.passed for mark in own) / len(own)
        rows.append({"id": task, "title": own[0].title, "share": share})
    return sorted(rows, key=lambda row: task_order(str(row["id"])))


def _file_names(learners: Sequence[str]) -> list[str]:
    """File names from names of learners: what is no letter or digit could lead elsewhere, or meet another's name.

    >>> _file_names(["../ada", "Ada", "ada"])
    ['ada-78f5b592', 'Ada', 'ada-8d708768']
    """
    names: dict[str, str] = {}  # as a system without capitals would compare them → as written
    for learner in learners:
        name = re.sub(r"[^\w.-]+", "_", learner[:60]).strip("._") or "learner"
        if name != learner or name.casefold() in names:
            name = f"{name}-{zlib.crc32(learner.encode()):08x}"
        names[name.casefold()] = name
    return list(names.values())

"""From a docstring to paragraphs: what is not prose (code, tables, headings, signatures) falls away.

Docstrings mix reStructuredText, NumPy's and Google's conventions. The work is done in two steps:
`prose_lines` walks over the lines and leaves out what is not prose; `paragraphs` joins hard-wrapped lines
again.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

Line = tuple[int, str]
"""Indentation and text of a line; a blank line is None."""

UNDERLINE = re.compile(r"^([=\-~^*\"'`#+.:_])\1{2,}$")
TABLE_BORDER = re.compile(r"^\|?[:=\-+]{2,}(?:[ |+][:=\-+|]+)+$")
SIGNATURE = re.compile(r"^[\w.]+\(.*\)(?:\s*(?:->|=|--|:).*)?$|^[\w., ]+ = [\w.]+\(.*\)$")
DIRECTIVE = re.compile(r"^\.\.\s*([\w:-]+?)::\s*(.*)$")
SECTION = re.compile(r"^[A-Z][\w ]{2,30}:$")
BULLET = re.compile(r"^(?:[-*+•]|\(?\d{1,2}[.)]|\(?[a-hA-H][)]|#\.)\s+(?=\S)")
FIELD = re.compile(r"^:(\w+)([^:`]*):\s*")
NUMPY_TERM = re.compile(r"^[*`\w][^:]{0,70}\s:(?:\s|$)")
GOOGLE_TERM = re.compile(
    r"^[*`]{0,3}[A-Za-z_][\w.]*[`]*(?:, \*{0,2}\w+)*\s?(?:\([^()]*(?:\([^()]*\)[^()]*)*\))?:\s+(?=\S)"
)
DASH_TERM = re.compile(r"^[*`]{0,3}[\w.]+(?:\([^()]*\))?[`]*(?:, \w+(?:\(\))?)*\s+--?\s+(?=\S)")
COLUMNS = re.compile(r"\S {3,}\S|\t")
NOT_PROSE = (UNDERLINE, SECTION, COLUMNS, SIGNATURE)

PROSE_DIRECTIVES = frozenset(
    "note warning tip hint important caution attention danger admonition versionadded versionchanged deprecated".split()
)
TITLED = frozenset("note warning tip hint important caution attention danger".split())
SKIPPED_SECTIONS = frozenset({"see also", "references", "bibliography", "methods", "routines"})
KEPT_FIELDS = frozenset(
    "param parameter arg argument key keyword kwarg return returns raise raises yields var ivar cvar".split()
)


@dataclass
class _Walk:
    """Where the walk over a docstring stands."""

    skip_above: int | None = None  # inside a block to leave out: lines indented more than this
    until_blank: bool = False  # inside a doctest or a table
    fenced: bool = False  # between two ``` lines
    section: str = ""
    out: list[Line | None] = field(default_factory=list)

    def skips(self, indent: int, text: str) -> bool:
        """Whether the line lies in a block that is left out; keeps the state up to date."""
        if text.startswith(("```", "~~~")):
            self.fenced = not self.fenced
            return True
        if self.fenced:
            return True
        if self.skip_above is not None:
            if indent > self.skip_above:
                return True
            self.skip_above = None
        return self.until_blank


def prose_lines(text: str) -> list[Line | None]:
    """Lines of a docstring without literal blocks, doctests, tables, headings, directives and signatures."""
    lines = inspect.cleandoc(text).splitlines()
    walk = _Walk()
    skip_next = False
    for number, raw in enumerate(lines):
        line = raw.strip()
        if skip_next or not line:
            skip_next = False
            walk.until_blank = False
            walk.out.append(None)
            continue
        indent = len(raw) - len(raw.lstrip())
        following = lines[number + 1].strip() if number + 1 < len(lines) else ""
        if UNDERLINE.match(following) and len(following) >= min(len(line), 4) and not walk.fenced and len(line) < 90:
            walk = _Walk(section=line.lower().rstrip(":"), out=walk.out)
            walk.out.append(None)
            skip_next = True
        elif walk.section not in SKIPPED_SECTIONS and not walk.skips(indent, line):
            walk.out.extend(_kept(walk, indent, line))
    return walk.out


def _kept(walk: _Walk, indent: int, line: str) -> Iterator[Line | None]:
    """What remains of one line outside any skipped block; opens a skipped block where one begins."""
    if line.startswith((">>>", "In [", "$ ", "% ", "@")) or TABLE_BORDER.match(line):
        walk.until_blank = True
        yield None
    elif line.startswith(".."):
        yield None
        match = DIRECTIVE.match(line)
        if match is None or match[1] not in PROSE_DIRECTIVES:
            walk.skip_above = indent
        elif match[1] in TITLED and match[2]:
            yield indent + 3, match[2]
    elif line.startswith(("|", "+-")) or any(pattern.search(line) for pattern in NOT_PROSE):
        yield None
    elif line.endswith("::"):
        walk.skip_above = indent
        if len(line) > 2:
            yield indent, line[:-1].rstrip()
    else:
        yield indent, line


def paragraphs(lines: Iterable[Line | None]) -> Iterator[str]:
    """Joins hard-wrapped lines; a bullet, a field or a described parameter begins a paragraph of its own.

    >>> list(paragraphs([(0, "x : int"), (4, "The number of"), (4, "rows.")]))
    ['The number of rows.']
    """
    current: list[str] = []
    base, hanging = 0, False
    for line in [*lines, None]:
        if line is None:
            if current and not NUMPY_TERM.match(current[0]):
                yield _joined(current)
            current, hanging = [], False
            continue
        indent, text = line
        item = _item(text, inside=bool(current) and not hanging and not current[-1].endswith(":"))
        if item is None and current and (indent == base or (hanging and indent > base)):
            current.append(text)
            continue
        if current and not (indent > base and _is_term(current)) and not NUMPY_TERM.match(current[0]):
            yield _joined(current)
        current, base, hanging = [text if item is None else item], indent, item is not None
        if item == "":
            current, hanging = [], False


def _joined(lines: list[str]) -> str:
    """The lines as one; a word divided at a line's end keeps its hyphen but gets no space."""
    return re.sub(r"(?<=[a-z]-)\n(?=[a-z])", "", "\n".join(lines)).replace("\n", " ")


def _item(text: str, inside: bool) -> str | None:
    """The text of a list item or after `name:`; None for an ordinary line, "" where there is no text."""
    bullet = BULLET.match(text)
    if bullet and (not inside or text[0] in "-*•"):
        rest = text[bullet.end() :]
        return _item(rest, inside=False) or rest
    if field_match := FIELD.match(text):
        return text[field_match.end() :] if field_match[1] in KEPT_FIELDS else ""
    if not inside and not NUMPY_TERM.match(text) and (term := GOOGLE_TERM.match(text) or DASH_TERM.match(text)):
        return text[term.end() :]
    return None


def _is_term(lines: list[str]) -> bool:
    """Whether a paragraph followed by deeper indentation is the head of a definition, not a sentence."""
    return len(lines) == 1 and (len(lines[0]) < 60 or " : " in lines[0]) and lines[0][-1] not in ".!?"

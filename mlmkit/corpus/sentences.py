"""From a paragraph to sentences: inline markup becomes plain words, and only English prose is kept."""

from __future__ import annotations

import re

SPOILT = "\x00"
"""Stands where something unreadable (a formula, a placeholder) was; its sentence is dropped."""

MAX_WORDS = 100
LONG = 60
LAST_LATIN = "\u024f"

ROLE = re.compile(r":([\w+.-]+(?::[\w+.-]+)?):`([^`]*)`")
LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`_{0,2}")
CODE = re.compile(r"``(.+?)``|`([\w.]+)'(?!\w)|`([^`]+)`_{0,2}")
EMPHASIS = re.compile(r"(?<![\w*\\])(\*{1,3})(?=[^\s*])([^*]+?)(?<=[^\s*])\1(?![\w*])")
FOOTNOTE = re.compile(r"\s?\[(?:\d+|#\w*|\w+\d{2,4}\w?|[\w.-]+(?=\]_))\]_?(?:[,;-]\s?\[\d+\]_?)*")
PLACEHOLDER = re.compile(r"%\(\w+\)s|\{\w*\}|\|\w+\||\$[^$]+\$|\w*://\S*|\\(?!s\b)[a-zA-Z]+")
SIMPLE_MATH = re.compile(r"^[\w ,.()=<>+\-*/|]{1,24}$")
ESCAPE = re.compile(r"\\(?=s\b)|\\([^a-zA-Z])")
QUOTES = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "…": "...", "\u00a0": " ", "–": "-", "—": " - "})

QUOTE = re.compile('["“”‘’()]')
QUOTE_AFTER_STOP = re.compile('([.!?])["”’)]')
PLAIN = re.compile(r"^[\"'(\[]*(?:[^\W\d_]+(?:['/-][^\W\d_]+)*'?|\d+(?:\.\d+)?(?:st|nd|rd|th|D|-D)?|-)[)\]\"'.,;:!?]*$")
FUNCTION_WORDS = frozenset(
    "a an the of to in on at by for from with without as is are was were be been being has have had do "
    "does did not no and or but if then than that this these those it its they their we you your he his "
    "i she her which who what when where while whether because since so such may can could will would "
    "should must might into over under between all any each every both either only also other same more "
    "most some there here how after before until about used using via per up out one two".split()
)
DANGLING = frozenset("a an the of to in on at by for from with as is are be and or but that which see".split())


def plain(paragraph: str) -> str:
    """A paragraph without markup: roles, links, code quotes, emphasis and footnotes become plain words.

    >>> plain("See :func:`~numpy.linalg.svd`, ``x.T`` and `the guide <https://a.b>`_ [1]_.")
    'See svd, x.T and the guide.'
    """
    text = ROLE.sub(_role, paragraph.translate(QUOTES))
    text = LINK.sub(r"\1", text)
    text = CODE.sub(_code, text)
    text = EMPHASIS.sub(r"\2", EMPHASIS.sub(r"\2", text))
    text = FOOTNOTE.sub("", text).replace("`", "")
    text = PLACEHOLDER.sub(SPOILT, text)
    text = ESCAPE.sub(lambda match: (match[1] or "").strip(), text)
    text = re.sub(r"\s+", " ", text)
    return re.sub(r" ([.,;:])(?=\s|$)", r"\1", text).strip()


def _role(match: re.Match[str]) -> str:
    name, content = match[1], match[2]
    if name == "math":
        return content if SIMPLE_MATH.match(content) else SPOILT
    target = re.match(r"(.+?)\s*<[^>]*>$", content)
    if target:
        return target[1]
    return content.rsplit(".", 1)[-1] if content.startswith("~") else content.lstrip("!")


def _code(match: re.Match[str]) -> str:
    content = match[1] or match[2] or match[3]
    return content.rsplit(".", 1)[-1] if content.startswith("~") else content.lstrip("!.") or content


def split_sentences(text: str) -> list[str]:
    """Sentences of a text, by `sentencex`; neither "e.g." nor the dot in "torch.Tensor" ends one.

    The library never cuts inside quotation marks or brackets, so a long or unbalanced one would stay in one piece:
    pieces of more than sixty words are split once more without regard to them.

    >>> split_sentences("Return a torch.Tensor, e.g. a matrix. It is new.")
    ['Return a torch.Tensor, e.g. a matrix.', 'It is new.']
    """
    sentences: list[str] = []
    for sentence in _segment(text, text):
        if sentence.count(" ") > LONG:
            hidden = QUOTE.sub(" ", QUOTE_AFTER_STOP.sub(r"x\1", sentence))
            sentences.extend(_segment(sentence, hidden))
        else:
            sentences.append(sentence)
    return sentences


def _segment(text: str, stand_in: str) -> list[str]:
    """Cuts `text` where the library cuts `stand_in`, a string of equal length."""
    import sentencex

    sentences: list[str] = []
    position, joined = 0, False  # the library also cuts before a capital that follows a dot without a space
    for piece in sentencex.segment("en", stand_in):
        part = text[position : position + len(piece)]
        position += len(piece)
        if joined and sentences:
            sentences[-1] += part.rstrip()
        elif part.strip():
            sentences.append(part.strip())
        joined = not piece[-1:].isspace()
    return sentences


def prose_sentences(paragraph: str) -> list[str]:
    """The sentences of a docstring's paragraph that read as English."""
    return [sentence for sentence in split_sentences(plain(paragraph)) if is_prose(sentence)]


def is_prose(sentence: str) -> bool:
    """Whether a sentence is mostly plain words, held together by function words, and not cut off.

    >>> is_prose("The singular values are sorted in descending order."), is_prose("u, s, vh = svd(a)")
    (True, False)
    """
    if SPOILT in sentence or max(sentence) > LAST_LATIN:
        return False
    tokens = sentence.split()
    if not 3 <= len(tokens) <= MAX_WORDS or not (sentence[0].isalnum() or sentence[0] in "\"'("):
        return False
    if sentence[-1] in ",;=([{-" or "copyright" in sentence.lower():
        return False
    if sum(PLAIN.match(token) is not None for token in tokens) < 0.7 * len(tokens):
        return False
    words = [token.strip("\"'()[].,;:!?").lower() for token in tokens]
    if sentence[-1].isalnum() and words[-1] in DANGLING:
        return False
    return sum(word in FUNCTION_WORDS for word in words) >= (1 if len(words) < 12 else 2)

"""Right solutions of exercise set 05, written in different ways."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np


def _lists_of_words(words: dict[str, int], k: int) -> Any:
    """Each word stands in a list as often as it occurs; merges look two pieces ahead."""
    text = [[c if i == 0 else "##" + c for i, c in enumerate(word)] for word, n in words.items() for _ in range(n)]
    merges: list[list[Any]] = []
    for _ in range(k):
        counts: dict[tuple[str, str], int] = defaultdict(int)
        for pieces in text:
            for i in range(len(pieces) - 1):
                counts[pieces[i], pieces[i + 1]] += 1
        often = [pair for pair, n in counts.items() if n >= 2]
        if not often:
            return merges
        left, right = max(often, key=lambda pair: counts[pair])
        merges.append([left, right, counts[left, right]])
        for pieces in text:
            i = 0
            while i + 1 < len(pieces):
                if pieces[i] == left and pieces[i + 1] == right:
                    pieces[i : i + 2] = [left + right[2:]]
                i += 1
    return merges


def _as_strings(words: dict[str, int], k: int) -> Any:
    """Pieces are separated by spaces in one string, and merged by replacing text."""
    texts = {word: " ##".join(word) for word in words}
    merges: list[Any] = []
    for _ in range(k):
        counts: dict[tuple[str, ...], Any] = {}
        for word, text in texts.items():
            pieces = text.split()
            for pair in pairwise(pieces):
                counts[pair] = counts.get(pair, 0) + np.int32(words[word])
        ranked = sorted(counts.items(), key=lambda item: item[1], reverse=True)
        if not ranked or ranked[0][1] == 1:
            break
        (left, right), count = ranked[0]
        merges += [(left, right, count)]
        where = re.compile(rf"(?<!\S){left} {right}(?!\S)")
        texts = {word: where.sub(left + right[2:], text) for word, text in texts.items()}
    return tuple(merges)


def _by_recursion(words: dict[str, int], k: int) -> Any:
    """Merge once, then the rest."""

    def merged(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
        if len(pieces) < 2:
            return pieces
        if pieces[:2] == pair:
            return (pair[0] + pair[1][2:], *merged(pieces[2:], pair))
        return (pieces[0], *merged(pieces[1:], pair))

    def go_on(split: list[tuple[tuple[str, ...], int]], k: int) -> list[tuple[str, str, int]]:
        pairs = [(pair, n) for pieces, n in split for pair in pairwise(pieces)]
        totals = {pair: sum(n for other, n in pairs if other == pair) for pair, _ in pairs}
        best = max(totals, key=lambda pair: totals[pair], default=None)
        if k == 0 or best is None or totals[best] < 2:
            return []
        return [(*best, totals[best]), *go_on([(merged(pieces, best), n) for pieces, n in split], k - 1)]

    return go_on([((word[0], *(f"##{c}" for c in word[1:])), n) for word, n in words.items()], k)


def _from_the_end(word: str, vocabulary: list[str]) -> Any:
    pieces: list[str] = []
    rest, known = word, set(vocabulary)
    while rest:
        for end in range(len(rest), 0, -1):
            piece = rest[:end] if not pieces else "##" + rest[:end]
            if piece in known:
                pieces.append(piece)
                rest = rest[end:]
                break
        else:
            return ["[UNK]"]
    return pieces


def _by_startswith(word: str, vocabulary: list[str]) -> Any:
    """Sort the vocabulary by length, and take the first piece that the marked rest begins with."""
    by_length = sorted(vocabulary, key=len, reverse=True)
    begins = [piece for piece in by_length if not piece.startswith("##")]
    continues = [piece for piece in by_length if piece.startswith("##")]
    rest, pieces = word, ()
    while rest not in ("", "##"):
        piece = next((p for p in (continues if pieces else begins) if rest.startswith(p)), None)
        if piece is None:
            return ("[UNK]",)
        pieces += (piece,)
        rest = "##" + rest[len(piece) :]
    return pieces


def _recursive(word: str, vocabulary: list[str]) -> Any:
    def cut(rest: str) -> list[str]:
        if rest in ("", "##"):
            return []
        lengths = [n for n in range(1, len(rest) + 1) if rest[:n] in vocabulary and rest[:n] != "##"]
        if not lengths:
            raise LookupError
        return [rest[: lengths[-1]], *cut("##" + rest[lengths[-1] :])]

    try:
        return cut(word)
    except LookupError:
        return ["[UNK]"]


VARIANTS = {
    "05.3": (_lists_of_words, _as_strings, _by_recursion),
    "05.8": (_from_the_end, _by_startswith, _recursive),
}

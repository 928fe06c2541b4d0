"""Coding tasks on WordPiece: the first merges, and longest match."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from mlmkit.grading.tasks import CodeTask, Mistake

Merges = list[tuple[str, str, int]]
Split = dict[str, list[str]]


# 05.3 The first merges


def _start(words: Mapping[str, int], mark: str = "##") -> Split:
    return {word: [word[0], *(mark + letter for letter in word[1:])] for word in words}


def _pairs(split: Split, words: Mapping[str, int]) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for word, pieces in split.items():
        for pair in pairwise(pieces):
            found[pair] += words[word]
    return found


def _joined(left: str, right: str) -> str:
    return left + right.removeprefix("##")


def _merged(pieces: Sequence[str], pair: tuple[str, str], join: Callable[[str, str], str] = _joined) -> list[str]:
    done: list[str] = []
    i = 0
    while i < len(pieces):
        if tuple(pieces[i : i + 2]) == pair:
            done.append(join(*pair))
            i += 2
        else:
            done.append(pieces[i])
            i += 1
    return done


def first_merges(
    words: Mapping[str, int],
    k: int,
    *,
    mark: str = "##",
    least: int = 2,
    by: Callable[[Split, Mapping[str, int]], Mapping[tuple[str, str], float]] = _pairs,
    join: Callable[[str, str], str] = _joined,
) -> Merges:
    """The first k merges with their counts; the keywords make the known mistakes."""
    split, merges = _start(words, mark), []
    for _ in range(k):
        counts, ranks = _pairs(split, words), by(split, words)
        if not counts:
            break
        best = max(ranks, key=lambda pair: ranks[pair])
        count = counts[best] if by is _score else int(ranks[best])
        if count < least:
            break
        merges.append((*best, count))
        split = {word: _merged(pieces, best, join) for word, pieces in split.items()}
    return merges


def _different_words(split: Split, words: Mapping[str, int]) -> Counter[tuple[str, str]]:
    return _pairs(split, dict.fromkeys(words, 1))


def _score(split: Split, words: Mapping[str, int]) -> dict[tuple[str, str], float]:
    single: Counter[str] = Counter()
    for word, pieces in split.items():
        for piece in pieces:
            single[piece] += words[word]
    return {pair: n / (single[pair[0]] * single[pair[1]]) for pair, n in _pairs(split, words).items()}


def _counted_once(words: Mapping[str, int], k: int) -> Merges:
    """The k most frequent pairs of the beginning."""
    common = _pairs(_start(words), words).most_common(k)
    return [(*pair, count) for pair, count in common if count > 1]


def is_clear(words: Mapping[str, int], k: int) -> bool:
    """Whether each of k merges is the only best one, and no three equal pieces stand in a row."""
    split = _start(words)
    for _ in range(k):
        if any(
            a == b == c for pieces in split.values() for a, b, c in zip(pieces, pieces[1:], pieces[2:], strict=False)
        ):
            return False
        top = _pairs(split, words).most_common(2)
        if not top or top[0][1] < 2:
            return True
        if len(top) > 1 and top[0][1] == top[1][1]:
            return False
        split = {word: _merged(pieces, top[0][0]) for word, pieces in split.items()}
    return True


def _draw_corpus(rng: np.random.Generator) -> dict[str, Any]:
    k, letters = int(rng.integers(1, 6)), list("abcde"[: int(rng.integers(2, 6))])
    while True:
        made = ["".join(rng.choice(letters, int(rng.integers(1, 7)))) for _ in range(int(rng.integers(3, 7)))]
        words = {word: int(rng.integers(1, 20)) for word in made}
        if is_clear(words, k):
            return {"words": words, "k": k}


MERGES = CodeTask(
    id="05.3",
    title="The first merges",
    points=6,
    concepts=(),
    function="first_merges",
    reference=lambda words, k: first_merges(words, k),
    draw=_draw_corpus,
    edges=(
        {"words": {"ab": 5, "abc": 3, "bc": 4}, "k": 3},
        {"words": {"the": 9, "then": 2, "she": 4, "an": 3}, "k": 4},
        {"words": {"ab": 2, "cde": 1}, "k": 3},
        {"words": {"abc": 1, "d": 7}, "k": 2},
        {"words": {"abab": 3, "ab": 2, "cab": 1}, "k": 3},
        {"words": {"xbcbc": 4, "xbc": 2, "bc": 3}, "k": 4},
        {"words": {"aab": 4, "aac": 3}, "k": 3},
        {"words": {"baa": 5, "caab": 3}, "k": 2},
    ),
    rounds=12,
    mistakes=(
        Mistake(
            "each word once",
            lambda words, k: first_merges(words, k, by=_different_words),
            "each different word was counted once: a pair counts as often as its words stand in the text, so that a "
            "frequent word such as “the” becomes whole early",
        ),
        Mistake(
            "counted only at the beginning",
            _counted_once,
            "these are the most frequent pairs of the beginning: after each merge the pairs have to be counted again, "
            "since the pieces are others now",
        ),
        Mistake(
            "no mark",
            lambda words, k: first_merges(words, k, mark=""),
            "the mark ## is missing: a letter that begins a word and the same letter inside one are two pieces, and "
            "their pairs are counted apart",
        ),
        Mistake(
            "the other rule",
            lambda words, k: first_merges(words, k, by=_score),
            "your merges follow count(ab) / (count(a) · count(b)), the other rule of this name: here the most frequent "
            "pair is merged",
        ),
        Mistake(
            "single pairs",
            lambda words, k: first_merges(words, k, least=1),
            "a pair that occurs only once was merged: it would make a piece for one single place. Stop there",
        ),
        Mistake(
            "mark inside a piece",
            lambda words, k: first_merges(words, k, join=lambda left, right: left + right),
            "a merged piece keeps the ## of its second half inside, as “ab##c”: the mark says that a piece continues a "
            "word, and stands only in front",
        ),
    ),
    hints=(
        "Two small steps repeat: count all pairs of neighbors, then merge the best pair in every word. Keep for each "
        "word its list of pieces.",
        'Start with `{word: [word[0], *("##" + c for c in word[1:])]}`. `zip(pieces, pieces[1:])` gives the pairs of '
        "a word, and each adds `words[word]` to its count.",
        "`best = max(counts, key=counts.get)`; leave the loop when `counts[best] < 2`; the new piece is "
        '`best[0] + best[1].removeprefix("##")`, put where both stood.',
    ),
)


# 05.8 Longest match


def _cut(word: str, vocabulary: Sequence[str], take: Callable[[list[int]], int], unknown: str) -> list[str]:
    pieces: list[str] = []
    i = 0
    while i < len(word):
        mark = "##" if i else ""
        ends = [j for j in range(i + 1, len(word) + 1) if mark + word[i:j] in vocabulary]
        if not ends:
            return ["[UNK]"] if unknown == "whole" else [*pieces, "[UNK]"]
        pieces.append(mark + word[i : take(ends)])
        i = take(ends)
    return pieces


def longest_match(word: str, vocabulary: Sequence[str]) -> list[str]:
    """Cut a word by longest match; what cannot be cut is [UNK]."""
    return _cut(word, vocabulary, max, "whole")


def _without_marks(word: str, vocabulary: Sequence[str]) -> list[str]:
    return [piece.removeprefix("##") for piece in longest_match(word, vocabulary)]


def _marks_ignored(word: str, vocabulary: Sequence[str]) -> list[str]:
    bare = {piece.removeprefix("##") for piece in vocabulary}
    return longest_match(word, [*bare, *("##" + piece for piece in bare)])


def _goes_back(word: str, vocabulary: Sequence[str]) -> list[str]:
    def cut(rest: str, mark: str) -> list[str] | None:
        for j in range(len(rest), 0, -1):
            if mark + rest[:j] in vocabulary:
                if j == len(rest):
                    return [mark + rest]
                if (more := cut(rest[j:], "##")) is not None:
                    return [mark + rest[:j], *more]
        return None

    return cut(word, "") or ["[UNK]"]


def _draw_word(rng: np.random.Generator) -> dict[str, Any]:
    """A word at random, or one that can be cut; where single letters are missing, a long piece may be a trap."""
    letters, kept = "abcde"[: int(rng.integers(2, 6))], float(rng.choice([0.25, 0.9]))
    vocabulary = {mark + letter for letter in letters for mark in ("", "##") if rng.random() < kept}
    for mark in ["", "", "##", "##", *("##" if rng.random() < 0.6 else "" for _ in range(int(rng.integers(2, 9))))]:
        vocabulary.add(mark + "".join(rng.choice(list(letters), int(rng.integers(2, 4)))))
    pieces = [str(piece) for piece in rng.permutation(sorted(vocabulary))]
    if rng.random() < 0.6:
        first = next(piece for piece in pieces if not piece.startswith("##"))
        rest = [piece[2:] for piece in pieces if piece.startswith("##")]
        word = first + "".join(rng.choice(rest, int(rng.integers(0, 4))))
    else:
        word = "".join(rng.choice(list(letters), int(rng.integers(1, 9))))
    return {"word": word, "vocabulary": [str(piece) for piece in rng.permutation(pieces)]}


LONGEST_MATCH = CodeTask(
    id="05.8",
    title="Longest match",
    points=4,
    concepts=(),
    function="longest_match",
    reference=longest_match,
    draw=_draw_word,
    edges=(
        {"word": "unopened", "vocabulary": ["un", "u", "##n", "##open", "##o", "##opened", "##ed", "open"]},
        {"word": "baker", "vocabulary": ["bake", "baker", "##r", "##er", "bak"]},
        {"word": "undoer", "vocabulary": ["un", "undo", "##doer", "##ing"]},
        {"word": "bakez", "vocabulary": ["bake", "##r", "##s"]},
        {"word": "bakes", "vocabulary": ["bake", "s", "##r"]},
        {"word": "sob", "vocabulary": ["##s", "ob", "##ob"]},
        {"word": "a", "vocabulary": ["a", "##a"]},
        {"word": "aaaa", "vocabulary": ["a", "##a", "##aa"]},
    ),
    rounds=20,
    mistakes=(
        Mistake(
            "shortest match",
            lambda word, vocabulary: _cut(word, vocabulary, min, "whole"),
            "you take the shortest piece that fits: words fall into letters again. Take the longest",
        ),
        Mistake(
            "marks left out",
            _without_marks,
            "the mark ## is missing in your pieces: without it “the bakers” and “the baker s” are the same tokens",
        ),
        Mistake(
            "marks ignored",
            _marks_ignored,
            "you find pieces whether they are marked or not: inside a word only pieces with ## may stand, and at its "
            "beginning only pieces without",
        ),
        Mistake(
            "only the rest unknown",
            lambda word, vocabulary: _cut(word, vocabulary, max, "rest"),
            "you keep the pieces found so far and put [UNK] for the rest: when something is left that no piece fits, "
            "the whole word is one [UNK]",
        ),
        Mistake(
            "going back",
            _goes_back,
            "you go back and try a shorter piece when the rest cannot be cut: longest match never does. It is greedy, "
            "and gives [UNK] for some words that could be cut",
        ),
    ),
    hints=(
        "Keep the place i at which the next piece begins. It starts at 0 and jumps to the end of each piece taken.",
        "At place i try the ends from the longest to the shortest: `len(word)`, then one less, and so on. The "
        "candidate is `word[i:j]`, with `##` in front if i > 0.",
        "`for j in range(len(word), i, -1)`: the first `mark + word[i:j]` in the vocabulary is taken. If none is, "
        'return `["[UNK]"]`.',
    ),
)

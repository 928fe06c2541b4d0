"""A language and its floors in words: what `mlmkit exact` prints."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlmkit.errors import UserError
from mlmkit.exact.estimates import Estimate
from mlmkit.exact.floors import NSPOptimum, mlm_floor, nsp_optimum
from mlmkit.exact.gaps import DependencyGap, dependency_gap
from mlmkit.exact.inference import BERT, FIRST_WORD
from mlmkit.exact.order import order_blind_bound
from mlmkit.language import Language
from mlmkit.masking import MaskingPolicy

MOST_WORDS = 5
"""Words of a class that are shown for each topic."""


@dataclass(frozen=True)
class FloorReport:
    """What is possible on a language; losses in nats.

    Attributes:
        language: its name.
        policy: how the words are masked.
        uniform: ln V, every token equally likely.
        unigram_entropy: the word frequencies and nothing else.
        order_blind: no predictor gets below it that ignores the word order; None: too many classes to compute it.
        left, right, neighbors: the best predictors that see one side, or the two neighbors.
        floor: the best predictor of all.
        nsp: the best answers to "is B the next sentence".
        masks: how many words of a pair are hidden for `dependency`.
        dependency: what is lost by predicting them independently of each other.
    """

    language: str
    policy: MaskingPolicy
    uniform: float
    unigram_entropy: float
    order_blind: float | None
    left: Estimate
    right: Estimate
    neighbors: Estimate
    floor: Estimate
    nsp: NSPOptimum
    masks: int
    dependency: DependencyGap

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        p = self.policy
        yield (
            f"{self.language}: {p.rate:.0%} of the words are selected; of these {p.mask:.0%} become [MASK], "
            f"{p.random:.0%} a random word, {p.keep:.0%} stay"
        )
        yield "\nmasked words, loss in nats"
        yield f"  all tokens alike, ln V     {self.uniform:.3f}"
        yield f"  word frequencies, unigram  {self.unigram_entropy:.3f}"
        bound = "too many classes to compute" if self.order_blind is None else f"{self.order_blind:.3f} or more"
        yield f"  any order of the words     {bound}"
        yield f"  left context only          {self.left}"
        yield f"  right context only         {self.right}"
        yield f"  the two neighbors only     {self.neighbors}"
        yield f"  floor                      {self.floor}"
        accuracy = self.nsp.accuracy
        yield "\nis B the next sentence"
        yield f"  best accuracy              {accuracy.mean:.1%} ± {accuracy.standard_error:.1%}, a coin 50.0%"
        yield f"  lowest loss                {self.nsp.loss}, ln 2 {math.log(2):.3f}"
        yield f"\n{self.masks} [MASK] in a pair, predicted independently of each other instead of jointly"
        yield f"  lost for each word         {self.dependency.per_word}"


def floor_report(language: Language, policy: MaskingPolicy = BERT, pairs: int = 4096, seed: int = 0) -> FloorReport:
    """Compute all reference lines of a language; every context is asked the same questions.

    Args:
        language: which.
        policy: how words are masked.
        pairs: how many are drawn for each estimate.
        seed: of the draws.
    """

    def rng() -> np.random.Generator:
        return np.random.default_rng(seed)

    masks = max(2, round(policy.rate * sum(language.lengths)))
    return FloorReport(
        language=language.name,
        policy=policy,
        uniform=math.log(FIRST_WORD + len(language.words)),
        unigram_entropy=language.unigram_entropy,
        order_blind=_order_blind(language, policy),
        left=mlm_floor(language, rng(), policy=policy, context="left", pairs=pairs),
        right=mlm_floor(language, rng(), policy=policy, context="right", pairs=pairs),
        neighbors=mlm_floor(language, rng(), policy=policy, context="neighbors", pairs=pairs),
        floor=mlm_floor(language, rng(), policy=policy, pairs=pairs),
        nsp=nsp_optimum(language, rng(), policy=policy, pairs=pairs),
        masks=masks,
        dependency=dependency_gap(language, rng(), masks=masks, pairs=pairs),
    )


def _order_blind(language: Language, policy: MaskingPolicy) -> float | None:
    try:
        return order_blind_bound(language, policy)
    except UserError:  # too many classes
        return None


def describe(language: Language, documents: int, rng: np.random.Generator) -> str:
    """Show a language: some documents, its classes and the words that each topic prefers, and what follows what.

    Args:
        language: which.
        documents: how many are drawn.
        rng: draws them.
    """
    N, C, K = len(language.words), len(language.classes), len(language.topics)
    first, second = language.lengths
    lines = [f"{language.name}: {N} words, {C} classes, {K} topics; two sentences of {first} and {second} words"]
    for sentences in language.documents(documents, rng):
        lines += ["", *(f"  {sentence}" for sentence in sentences)]
    for c, name in enumerate(language.classes):
        lines.append(f"\n{name}")
        for k, topic in enumerate(language.topics):
            p = language.emission[k, c]
            best = [n for n in np.argsort(-p, kind="stable")[:MOST_WORDS] if p[n] > 0]
            lines.append(f"  {topic}: " + ", ".join(f"{language.words[n]} {p[n]:.0%}" for n in best))
    return "\n".join([*lines, "", *_transition_lines(language)])


def _transition_lines(language: Language) -> Iterator[str]:
    """Table of Pr(class of the next word | class), and of the first word, in percent."""
    width = max(len(name) for name in (*language.classes, "first word"))
    cell = max(4, max(len(name) for name in language.classes)) + 1
    yield f"{'then, in %':{width}}" + "".join(f"{name:>{cell}}" for name in language.classes)
    for name, row in zip(("first word", *language.classes), (language.start, *language.transition), strict=True):
        yield f"{name:{width}}" + "".join(f"{100 * p:{cell}.0f}" for p in row)

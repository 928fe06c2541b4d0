"""What counting words achieves without any network: the baselines a fine-tuned network must beat.

Everything is fitted on the training part by scikit-learn; the strength C of the logistic regression is chosen on the
validation part; the test part is looked at once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlmkit.finetuning.metrics import Scores, confusion_matrix
from mlmkit.finetuning.task import Example, Task, truth

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""Inverse regularization C of the logistic regression: one of them is chosen on the validation part."""
WORD = r"\w+|[^\w\s]"
"""What counts as a word: letters and digits, or one other sign."""


@dataclass(frozen=True)
class Baseline:
    """A classifier without a network; it has no seed, so it gives one number.

    Attributes:
        name: what it is.
        validation, test: its scores.
        setting: what was chosen on the validation part; empty if there was nothing to choose.
    """

    name: str
    validation: Scores
    test: Scores
    setting: str = ""

    def __str__(self) -> str:
        chosen = f" ({self.setting})" if self.setting else ""
        return (
            f"{self.name}{chosen}: test accuracy {self.test.accuracy:.1%}, macro-F1 {self.test.macro_f1:.1%}; "
            f"validation accuracy {self.validation.accuracy:.1%}"
        )


def majority_class(task: Task) -> Baseline:
    """Answer the most frequent label of the training part, whatever is asked."""
    usual = int(np.bincount(truth(task.train)).argmax())
    answers = {part: np.full(len(truth(getattr(task, part))), usual) for part in ("validation", "test")}
    return _judge("majority class", task, answers)


def bag_of_words(task: Task) -> Baseline:
    """Logistic regression on what can be counted.

    - A sentence: TF-IDF of its words and neighboring pairs of words.
    - A pair: TF-IDF of A, of B, of the words that only A has, and of those that only B has; with them four numbers:
      shared words / all words (Jaccard), shared words / words of A, shared words / words of B, and the difference of
      lengths.
    - Words: each word itself, its neighbors, its endings of one to three letters, capitals and digits.
    """
    if task.kind == "tokens":
        return _regression("word, neighbors, endings + logistic regression", task, *_word_features(task))
    if task.kind == "pair":
        return _regression("TF-IDF and overlap + logistic regression", task, *_pair_features(task))
    return _regression("TF-IDF + logistic regression", task, *_sentence_features(task))


def most_frequent_tag(task: Task) -> Baseline:
    """Answer for each word the label it has most often in the training part; for a new word, the usual label."""
    counts: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for example in task.train:
        for word, label in zip(example.text, example.labels, strict=True):
            counts[word][label] += 1
    usual = int(np.bincount(truth(task.train)).argmax())
    tags = {word: min(seen, key=lambda k: (-seen[k], k)) for word, seen in counts.items()}
    answers = {
        part: np.array([tags.get(word, usual) for example in getattr(task, part) for word in example.text])
        for part in ("validation", "test")
    }
    return _judge("most frequent label of the word", task, answers)


def baselines_of(task: Task) -> list[Baseline]:
    """All that apply, the strongest first."""
    middle = [most_frequent_tag(task)] if task.kind == "tokens" else []
    return [bag_of_words(task), *middle, majority_class(task)]


def _judge(name: str, task: Task, answers: dict[str, NDArray[np.int64]], setting: str = "") -> Baseline:
    scores = {
        part: Scores(confusion_matrix(truth(getattr(task, part)), found, len(task.labels)))
        for part, found in answers.items()
    }
    return Baseline(name, scores["validation"], scores["test"], setting)


def _regression(name: str, task: Task, train: Any, validation: Any, test: Any) -> Baseline:
    """Fit with each strength, and keep the one that answers the validation part best; of equals the weaker fit."""
    from sklearn.linear_model import LogisticRegression

    wanted, fits = truth(task.validation), []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000).fit(train, truth(task.train))
        fits.append((float((model.predict(validation) == wanted).mean()), -strength, model))
    _, strength, model = max(fits, key=lambda fit: fit[:2])
    answers = {"validation": model.predict(validation), "test": model.predict(test)}
    return _judge(name, task, answers, f"C = {-strength:g}")


def _vectorizer(**options: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(token_pattern=WORD, sublinear_tf=True, **options)


def _sentence_features(task: Task) -> list[Any]:
    """TF-IDF of words and neighboring pairs of words (N, features), for each part."""
    vectorizer = _vectorizer(ngram_range=(1, 2))
    texts = [[example.text[0] for example in part] for part in (task.train, task.validation, task.test)]
    return [vectorizer.fit_transform(texts[0]), *map(vectorizer.transform, texts[1:])]


def _pair_features(task: Task) -> list[Any]:
    """The words of both, the words of only one, and how many are shared (N, 4 V + 4), for each part."""
    from scipy.sparse import csr_matrix, hstack

    vectorizer = _vectorizer()
    vectorizer.fit([sentence for example in task.train for sentence in example.text])
    words = vectorizer.build_analyzer()

    def features(part: Sequence[Example]) -> Any:
        a, b = ([words(example.text[side]) for example in part] for side in (0, 1))
        only_a = [[w for w in x if w not in set(y)] for x, y in zip(a, b, strict=True)]
        only_b = [[w for w in y if w not in set(x)] for x, y in zip(a, b, strict=True)]
        blocks = [vectorizer.transform([" ".join(text) for text in some]) for some in (a, b, only_a, only_b)]
        numbers = np.array([overlap(x, y) for x, y in zip(a, b, strict=True)])  # (N, 4)
        return csr_matrix(hstack([*blocks, csr_matrix(numbers)]))

    return [features(part) for part in (task.train, task.validation, task.test)]


def overlap(a: Sequence[str], b: Sequence[str]) -> tuple[float, float, float, float]:
    """Shared words / all words, / words of A, / words of B; and |length of A − length of B| / (sum of both).

    >>> overlap(["no", "cat"], ["a", "cat"])
    (0.3333333333333333, 0.5, 0.5, 0.0)
    """
    x, y = set(a), set(b)
    shared = len(x & y)
    parts = (shared / max(len(x | y), 1), shared / max(len(x), 1), shared / max(len(y), 1))
    return *parts, abs(len(a) - len(b)) / max(len(a) + len(b), 1)


def _word_features(task: Task) -> list[Any]:
    """What a word looks like and what stands beside it (words, features), for each part."""
    from sklearn.feature_extraction import DictVectorizer

    vectorizer = DictVectorizer()
    rows = [
        [look(example.text, i) for example in part for i in range(len(example.text))]
        for part in (task.train, task.validation, task.test)
    ]
    return [vectorizer.fit_transform(rows[0]), *map(vectorizer.transform, rows[1:])]


def look(words: Sequence[str], i: int) -> dict[str, str | bool]:
    """Word i in lower case, its neighbors, its endings, and whether it has a capital or a digit.

    >>> look(["Two", "cats"], 1)["before"], look(["Two", "cats"], 1)["ending 2"]
    ('two', 'ts')
    """
    word = words[i].lower()
    return {
        "word": word,
        "before": words[i - 1].lower() if i else "(start)",
        "after": words[i + 1].lower() if i + 1 < len(words) else "(end)",
        **{f"ending {n}": word[-n:] for n in (1, 2, 3)},
        "capital": words[i][:1].isupper(),
        "digit": any(c.isdigit() for c in word),
    }

"""A linear probe: what can be read off vectors by a linear classifier, and by nothing more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmkit.errors import UserError
from mlmkit.intervals import Share, share_of

Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
STRENGTH = 0.1
"""scikit-learn's C, the inverse of the penalty on the weights: with some thousand questions and some hundred numbers
in a vector, a weaker penalty lets the probe learn the questions by heart."""


@dataclass(frozen=True)
class Probe:
    """How often a linear classifier was right.

    Attributes:
        accuracy: on questions that it was not fitted on.
        fitted: on those it was fitted on; far above `accuracy`, it has learned them by heart.
    """

    accuracy: Share
    fitted: Share


def linear_probe(known: Floats, answers: Ints, asked: Floats, right: Ints) -> Probe:
    """Fit logistic regression on some vectors and count its right answers on others (Alain & Bengio 2016).

    Every column is first brought to mean 0 and deviation 1 (of the vectors that it is fitted on). What a linear
    probe finds is there in a simple form; what it does not find may be there in another. A probe says that
    something can be read, not that the model reads it.

    Args:
        known: vectors to fit on (n, H).
        answers: their classes (n,).
        asked: other vectors (m, H).
        right: their classes (m,).

    Raises:
        UserError: there are no vectors, or all answers are the same.
    """
    if len(known) == 0 or len(asked) == 0:
        raise UserError(
            f"a probe needs questions to learn from and others to answer, got {len(known)} and {len(asked)}"
        )
    if len(np.unique(answers)) < 2:
        raise UserError("all questions that the probe learns from have the same answer: give a larger corpus")
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=2000))
    probe.fit(known, answers)
    return Probe(
        accuracy=share_of((probe.predict(asked) == right).sum(), len(right)),
        fitted=share_of((probe.predict(known) == answers).sum(), len(answers)),
    )

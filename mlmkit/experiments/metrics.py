"""What is measured of every run of an experiment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """A number of a run.

    Attributes:
        meaning: in words, with its unit.
        better: which direction is an improvement; None where there is none.
        exact: whether it needs a corpus drawn from a language, of which the best answer is known.
        decimals: to print.
    """

    meaning: str
    better: Literal["lower", "higher"] | None = "lower"
    exact: bool = False
    decimals: int = 4


_OWN = "validation part, masked as in the run's own training"
_COMMON = "the same questions for all, masked as the base configuration says"
_HOLE = "clean text with one word hidden, the same questions for all"
_CLEAN = "clean text with nothing hidden, asked for a word that stands there"

METRICS: dict[str, Metric] = {
    "mlm_loss": Metric(f"MLM loss in nats; {_OWN}"),
    "mlm_accuracy": Metric(f"share of masked words told right; {_OWN}", "higher"),
    "nsp_loss": Metric(f"NSP loss in nats; {_OWN}"),
    "nsp_accuracy": Metric(f"share of sentence relations told right; {_OWN}", "higher"),
    "common_mlm_loss": Metric(f"MLM loss in nats; {_COMMON}"),
    "common_mlm_accuracy": Metric(f"share of masked words told right; {_COMMON}", "higher"),
    "common_nsp_loss": Metric(f"NSP loss in nats; {_COMMON}"),
    "common_nsp_accuracy": Metric(f"share of sentence relations told right; {_COMMON}", "higher"),
    "hole_loss": Metric(f"loss in nats; {_HOLE}"),
    "hole_accuracy": Metric(f"share of hidden words told right; {_HOLE}", "higher"),
    "clean_loss": Metric(f"loss in nats; {_CLEAN}"),
    "clean_accuracy": Metric(f"share of words told right; {_CLEAN}", "higher"),
    "cls_relation": Metric(
        "share of clean pairs of which a linear classifier tells from the vector of [CLS] whether B follows A", "higher"
    ),
    "mlm_gap": Metric(f"MLM loss above that of the perfect model, in nats; {_COMMON}", exact=True),
    "kl": Metric(f"mean KL(true distribution ‖ model's) in nats; {_COMMON}", exact=True),
    "nsp_gap": Metric(f"NSP accuracy below that of the perfect model; {_COMMON}", exact=True),
    "hole_gap": Metric(f"loss above that of the perfect model, in nats; {_HOLE}", exact=True),
    "hole_kl": Metric(f"mean KL(true distribution ‖ model's) in nats; {_HOLE}", exact=True),
    "word_topic": Metric(
        "share of clean documents whose topic a linear classifier reads from the vector of one word in mid-sentence",
        "higher",
        exact=True,
    ),
    "seconds": Metric("wall-clock time of the training, in seconds", None, decimals=1),
    "tokens": Metric("real tokens read in training, repetitions counted", None, decimals=0),
}
"""All metrics by name. Of a run with `train.patience` those of its best evaluation, else those of its last: always
of the model that the run leaves behind."""

MEASURED = "measured.json"
"""Name of the file with the metrics of a run, in its folder; written last."""

NSP_METRICS = ("nsp_loss", "nsp_accuracy", "common_nsp_loss", "common_nsp_accuracy", "nsp_gap")
"""Those that mean nothing where the head was not trained (`train.nsp_weight=0`)."""


def default_metrics(exact: bool) -> tuple[str, ...]:
    """What is shown if nobody says."""
    return ("mlm_gap", "hole_gap", "nsp_gap") if exact else ("common_mlm_loss", "hole_loss", "common_nsp_accuracy")

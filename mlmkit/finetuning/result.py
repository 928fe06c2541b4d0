"""What fine-tuning gave: every seed's scores, their mean and spread, and where the rest is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlmkit.finetuning.recipe import FinetuneConfig
from mlmkit.finetuning.saving import Classifier
from mlmkit.finetuning.task import PARTS, Task
from mlmkit.finetuning.training import Outcome
from mlmkit.intervals import LEVEL, Interval, mean_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class FinetuneResult:
    """One recipe, one task, several seeds.

    Attributes:
        task: what was learned.
        config: the recipe, with device and precision resolved.
        from_scratch: whether all weights were random at the start.
        outcomes: what each seed gave.
        classifier: the network of the seed that is best on the validation part.
        cut: how many examples were too long for the network and lost their end.
        machine: hardware and versions.
    """

    task: Task
    config: FinetuneConfig
    from_scratch: bool
    outcomes: tuple[Outcome, ...]
    classifier: Classifier
    cut: int
    machine: dict[str, Any]

    def values(self, metric: str = "accuracy", part: str = "test") -> NDArray[np.float64]:
        """One number for each seed: "accuracy" or "macro_f1" on "validation" or "test"."""
        return np.array([getattr(getattr(outcome, part), metric) for outcome in self.outcomes])

    def interval(self, metric: str = "accuracy", part: str = "test") -> Interval:
        """Mean over the seeds and Student's 95 % interval of it."""
        found = mean_interval(self.values(metric, part))
        assert found is not None  # there is at least one seed
        return found

    def deviation(self, metric: str = "accuracy", part: str = "test") -> float | None:
        """Standard deviation over the seeds, s² = Σ (x − x̄)² / (n − 1); None with one seed."""
        return float(self.values(metric, part).std(ddof=1)) if len(self.outcomes) > 1 else None

    @property
    def best(self) -> Outcome:
        """The outcome of the seed whose network is kept: the best on the validation part."""
        return best_of(self.outcomes)

    @property
    def seconds(self) -> float:
        """Wall-clock time of all seeds."""
        return sum(outcome.seconds for outcome in self.outcomes)

    def plot(self) -> Figure:
        """Draw the epochs of all seeds; see `plot_epochs`."""
        from mlmkit.finetuning.pictures import plot_epochs

        return plot_epochs(self)

    def plot_confusion(self) -> Figure:
        """Draw which labels are taken for which; see `plot_confusion`."""
        from mlmkit.finetuning.pictures import plot_confusion

        return plot_confusion(self.best.test.confusion, self.task.labels)

    def __str__(self) -> str:
        start = "random initialization" if self.from_scratch else "pre-trained"
        n = len(self.outcomes)
        lines = [
            f"{self.task.name}, {start}, {n} seed{'s' if n > 1 else ''}",
            f"  test        {self._line('test')}",
            f"  validation  {self._line('validation')}",
            f"  kept: seed {self.best.seed}, epoch {self.best.kept} of {self.config.epochs}; all: {self.seconds:.0f} s",
        ]
        if n > 1:
            lines.append(f"  ± is the {LEVEL:.0%} interval of the mean over seeds, s their standard deviation")
        if self.cut:
            lines.append(f"  {self.cut} texts were longer than {self.classifier.max_length} tokens and lost their end")
        if self.task.duplicates:
            lines.append(f"  {self.task.duplicates} of the {len(self.task.test):,} test texts are also in training")
        return "\n".join([*lines, *(f"  {note}" for note in self.task.notes)])

    def _line(self, part: str) -> str:
        words = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
        return ", ".join(
            f"{name} {show(self.interval(metric, part))}{_spread(self.deviation(metric, part))}"
            for metric, name in words.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in `finetune.json`."""
        task = self.task
        return {
            "task": {
                "name": task.name,
                "kind": task.kind,
                "labels": list(task.labels),
                "fingerprint": task.fingerprint,
                "examples": {part: len(getattr(task, part)) for part in PARTS},
                "duplicates": task.duplicates,
                "notes": list(task.notes),
            },
            "from_scratch": self.from_scratch,
            "config": self.config.to_dict(),
            "summary": {
                part: {
                    metric: {**asdict(self.interval(metric, part)), "deviation": self.deviation(metric, part)}
                    for metric in ("accuracy", "macro_f1")
                }
                for part in ("validation", "test")
            },
            "kept_seed": self.best.seed,
            "seeds": [_outcome(outcome) for outcome in self.outcomes],
            "cut": self.cut,
            "seconds": self.seconds,
            **self.machine,
        }


def best_of(outcomes: Iterable[Outcome]) -> Outcome:
    """The highest accuracy on the validation part; of equal ones the lowest loss there."""
    return max(outcomes, key=lambda o: (o.validation.accuracy, -o.epochs[o.kept - 1].loss))


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "seed": outcome.seed,
        "validation": outcome.validation.to_dict(),
        "test": outcome.test.to_dict(),
        "epochs": [asdict(epoch) for epoch in outcome.epochs],
        "kept": outcome.kept,
        "seconds": outcome.seconds,
    }


def show(interval: Interval, sign: str = "") -> str:
    """A share in percent, with its interval where there is one.

    >>> show(Interval(0.7845, 0.0052, 5))
    '78.5 ± 0.5 %'
    """
    mean = f"{100 * interval.mean:{sign}.1f}"
    return f"{mean} %" if interval.half_width is None else f"{mean} ± {100 * interval.half_width:.1f} %"


def _spread(deviation: float | None) -> str:
    return "" if deviation is None else f" (s {100 * deviation:.1f})"

"""What pre-training bought: the same network with and without it, and counting words, on one task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlmkit.errors import UserError
from mlmkit.finetuning.counting import Baseline, baselines_of
from mlmkit.finetuning.recipe import FinetuneConfig
from mlmkit.finetuning.result import FinetuneResult, show
from mlmkit.finetuning.seeds import (
    Pretrained,
    finetune,
    free_folder,
    open_pretrained,
    scratch_recipe,
    write_result,
)
from mlmkit.finetuning.task import Task
from mlmkit.intervals import LEVEL, Interval, mean_interval, paired_interval
from mlmkit.weights import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PRETRAINED, SCRATCH = "pre-trained", "random initialization"
RECORD = "comparison.json"
"""Name of the file with everything that was measured."""
LONGER = (1, 3)
"""Factors of the recipe's number of epochs that are tried; the validation part decides for each way by itself."""


@dataclass(frozen=True)
class Row:
    """One way to do the task.

    Attributes:
        label: what it is.
        values: test scores, one for each seed; a single one where there is no seed.
        mean: of the values, with Student's interval over the seeds.
        difference: pre-trained minus this, paired by seed; None for the pre-trained network itself.
    """

    label: str
    values: NDArray[np.float64]
    mean: Interval
    difference: Interval | None


@dataclass(frozen=True)
class Comparison:
    """One task, one recipe, done in several ways.

    Attributes:
        pretrained: the fine-tuned network, with the number of epochs that is best on the validation part.
        scratch: the same network from random weights, with the number that is best for it.
        tried: mean validation accuracy of both for each number of epochs that was tried.
        baselines: what counting words achieves, and the majority class.
    """

    pretrained: FinetuneResult
    scratch: FinetuneResult
    tried: dict[str, dict[int, float]]
    baselines: tuple[Baseline, ...]

    def rows(self, metric: str = "accuracy") -> list[Row]:
        """One row for each way, on the test part: "accuracy" or "macro_f1"."""
        first = self.pretrained.values(metric)
        ways = {
            f"{PRETRAINED}, {_epochs(self.pretrained)}": first,
            f"{SCRATCH}, {_epochs(self.scratch)}": self.scratch.values(metric),
        }
        for b in self.baselines:
            ways[b.name] = np.array([getattr(b.test, metric)])
        rows = []
        for label, values in ways.items():
            mean = mean_interval(values)
            assert mean is not None  # there is at least one value
            difference = None if values is first else paired_interval(first, np.broadcast_to(values, first.shape))
            rows.append(Row(label, values, mean, difference))
        return rows

    def table(self) -> str:
        """A row for each way: test accuracy, macro-F1, and how much better the pre-trained network is."""
        seeds = len(self.pretrained.outcomes)
        cells = [("", "test accuracy", "macro-F1", "pre-trained better by (accuracy)")]
        for row, f1 in zip(self.rows(), self.rows("macro_f1"), strict=True):
            difference = "" if row.difference is None else show(row.difference, sign="+")
            cells.append((row.label, show(row.mean), show(f1.mean), difference))
        widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
        lines = [f"{self.pretrained.task.name}, {seeds} seed{'s' if seeds > 1 else ''}"]
        lines += ["  " + "   ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]
        return "\n".join([*lines, *self._remarks()])

    def _remarks(self) -> list[str]:
        """What a reader must know to judge the numbers."""
        task, accuracy = self.pretrained.task, self.rows()[0].mean.mean
        count = self.pretrained.best.test.count
        chance = 1.96 * (accuracy * (1 - accuracy) / count) ** 0.5
        lines = [
            f"  {way}, validation accuracy by epochs: "
            + ", ".join(f"{n}: {value:.1%}" for n, value in by_epochs.items())
            for way, by_epochs in self.tried.items()
        ]
        if len(self.pretrained.outcomes) > 1:
            lines.insert(0, f"  ± is the {LEVEL:.0%} interval over seeds; differences are paired by seed")
        if task.kind != "tokens":  # the words of a sentence do not count one by one: they share its difficulty
            lines.append(f"  {count:,} test texts alone leave an accuracy uncertain by ± {100 * chance:.1f} % (95 %)")
        return [*lines, *(f"  {note}" for note in task.notes)]

    def __str__(self) -> str:
        return self.table()

    def plot(self, metric: str = "accuracy") -> Figure:
        """Draw all ways with their seeds; see `plot_comparison`."""
        from mlmkit.finetuning.pictures import plot_comparison

        return plot_comparison(self, metric)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in `comparison.json`."""
        return {
            "pretrained": self.pretrained.to_dict(),
            "scratch": self.scratch.to_dict(),
            "validation_accuracy_by_epochs": {
                way: {str(n): value for n, value in by_epochs.items()} for way, by_epochs in self.tried.items()
            },
            "baselines": [
                {"name": b.name, "setting": b.setting, "validation": b.validation.to_dict(), "test": b.test.to_dict()}
                for b in self.baselines
            ],
            "differences": {
                metric: {row.label: asdict(row.difference) for row in self.rows(metric) if row.difference is not None}
                for metric in ("accuracy", "macro_f1")
            },
        }


def compare(
    pretrained: Pretrained,
    task: Task,
    config: FinetuneConfig | None = None,
    *,
    seeds: int | Sequence[int] = 5,
    out_dir: str | Path | None = None,
    epochs: Sequence[int] | None = None,
    report: Callable[[str], None] | None = None,
) -> Comparison:
    """Do a task with a pre-trained network, with the same one from random weights, and by counting words.

    Random weights need more time than pre-trained ones, and few examples more epochs than many. So that the
    comparison is fair, both networks get the recipe with each number of epochs in `epochs`, and for each of them the
    number with the best mean validation accuracy counts. Freezing and layer-wise decay protect what was pre-trained;
    random weights are trained without them.

    Args:
        pretrained: a folder, or a model with its tokenizer.
        task: from `load_task`.
        config: the recipe; default `FinetuneConfig()`.
        seeds: how many, or which.
        out_dir: the fine-tuned network, the table, the figure and `comparison.json` are left here.
        epochs: numbers of epochs to try; default: as many as the recipe says, and three times as many.
        report: called with a line after each seed.

    Raises:
        UserError: as `finetune`.
    """
    config = config or FinetuneConfig()
    folder = None if out_dir is None else free_folder(Path(out_dir))
    opened = open_pretrained(pretrained)
    budgets = [config.epochs * factor for factor in LONGER] if epochs is None else list(epochs)
    if not budgets:
        raise UserError("epochs must name at least one number of epochs to try")
    counted = tuple(baselines_of(task))
    results: dict[str, dict[int, FinetuneResult]] = {PRETRAINED: {}, SCRATCH: {}}
    for way, by_epochs in results.items():
        for number in budgets:
            recipe = scratch_recipe(config) if way == SCRATCH else config
            told = _named(report, f"{way}, {number} epochs")
            by_epochs[number] = finetune(
                opened, task, replace(recipe, epochs=number), seeds=seeds, from_scratch=way == SCRATCH, report=told
            )
    tried = {way: {n: r.interval(part="validation").mean for n, r in found.items()} for way, found in results.items()}
    best = {way: results[way][max(found, key=lambda n: (found[n], -n))] for way, found in tried.items()}
    comparison = Comparison(best[PRETRAINED], best[SCRATCH], tried, counted)
    if folder is not None:
        _write(comparison, folder)
    return comparison


def _epochs(result: FinetuneResult) -> str:
    return f"{result.config.epochs} epoch{'s' if result.config.epochs > 1 else ''}"


def _named(report: Callable[[str], None] | None, what: str) -> Callable[[str], None] | None:
    return None if report is None else lambda line: report(f"{what}, {line}")


def _write(comparison: Comparison, folder: Path) -> None:
    from mlmkit.plots import save_figure

    write_result(comparison.pretrained, folder)
    write_json(folder / RECORD, comparison.to_dict())
    (folder / "comparison.txt").write_text(comparison.table() + "\n", encoding="utf-8")
    save_figure(comparison.plot(), folder / "comparison.png")

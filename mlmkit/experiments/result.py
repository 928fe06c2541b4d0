"""What an experiment found: means over seeds with their intervals, and differences paired by seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mlmkit.errors import UserError
from mlmkit.experiments.metrics import METRICS, NSP_METRICS, Metric
from mlmkit.experiments.plan import Experiment
from mlmkit.intervals import LEVEL, Interval, mean_interval, paired_interval
from mlmkit.plots import BLUE, GREY, new_figure, style
from mlmkit.settings import nearest
from mlmkit.weights import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BOOK = "experiment.json"
"""Name of the file in which an experiment keeps what is planned and what is done."""


@dataclass(frozen=True)
class Row:
    """One configuration and one metric.

    Attributes:
        label: what distinguishes the configuration.
        mean: over its seeds; None if no run has finished.
        difference: to the first configuration, paired by seed; None for the first itself, or where a head that was
            not trained makes it meaningless.
        verdict: in words, where the interval of the difference excludes 0; otherwise empty.
        trained: False where the metric belongs to a head that was not trained.
    """

    label: str
    mean: Interval | None
    difference: Interval | None
    verdict: str
    trained: bool = True


@dataclass(frozen=True)
class Result:
    """An experiment and what its runs gave.

    Attributes:
        experiment: what was asked.
        runs: by name, as the book has them: row, seed, status, metrics or reason.
        folder: where everything lies.
    """

    experiment: Experiment
    runs: dict[str, dict[str, Any]]
    folder: Path

    @classmethod
    def load(cls, folder: str | Path) -> Result:
        """Open the folder of an experiment, finished or not.

        Raises:
            UserError: there is none.
        """
        book = read_json(Path(folder) / BOOK)
        try:
            return cls(Experiment.from_dict(book["experiment"]), book["runs"], Path(folder))
        except KeyError as missing:
            raise UserError(f"{Path(folder) / BOOK} is damaged, it has no {missing}; run the experiment anew") from None

    @property
    def failures(self) -> dict[str, str]:
        """Why runs have no result, by "label, seed"."""
        labels = [c.label for c in self.experiment.configurations()]
        return {
            f"{labels[run['row']]}, seed {run['seed']}": f"{run['status']}: {run['reason']}"
            for run in self.runs.values()
            if run["status"] != "finished"
        }

    def values(self, metric: str) -> NDArray[np.float64]:
        """All results (configurations, seeds); NaN where a run has none.

        Raises:
            UserError: there is no such metric, or it needs text whose best answer is known.
        """
        if metric not in METRICS:
            raise UserError(f"there is no metric {metric!r}{nearest(metric, METRICS)}; there are {', '.join(METRICS)}")
        seeds = self.experiment.seeds
        found = np.full((len(self.experiment.configurations()), len(seeds)), np.nan)
        for run in self.runs.values():
            if run["status"] == "finished" and run["seed"] in seeds:
                if metric not in run["metrics"]:
                    raise UserError(f"the metric {metric} needs text whose best answer is known: data.corpus=exact")
                found[run["row"], seeds.index(run["seed"])] = run["metrics"][metric]
        return found

    def rows(self, metric: str) -> list[Row]:
        """One row for each configuration, in the order of the grid."""
        values, rows = self.values(metric), []
        configurations = self.experiment.configurations()
        trained = [metric not in NSP_METRICS or c.config.train.nsp_weight > 0 for c in configurations]
        for number, configuration in enumerate(configurations):
            difference = None
            if number and trained[number] and trained[0]:
                difference = paired_interval(values[number], values[0])
            verdict = _verdict(METRICS[metric], difference)
            rows.append(Row(configuration.label, mean_interval(values[number]), difference, verdict, trained[number]))
        return rows

    def table(self) -> str:
        """A block for each metric: a row for each configuration, mean ± interval, difference to the first row."""
        plan = self.experiment
        seeds = f"{len(plan.seeds)} seeds, {LEVEL:.0%} intervals" if len(plan.seeds) > 1 else "1 seed: no interval"
        lines = [line for line in (plan.title, plan.question) if line]
        lines.append(f"{len(plan.configurations())} configurations × {seeds}")
        for metric in plan.metrics:
            lines += ["", f"{metric}: {METRICS[metric].meaning}", *_block(self.rows(metric), METRICS[metric])]
        failures = self.failures
        if failures:
            lines += ["", f"{len(failures)} without a result:", *(f"  {run}: {why}" for run, why in failures.items())]
        return "\n".join(lines)

    @style()
    def plot(self, metric: str) -> Figure:
        """Draw a metric of each configuration: small dots for the seeds, a large one with its bar for the mean."""
        rows, values = self.rows(metric), self.values(metric)
        figure, (axes,) = new_figure(width=7.0, height=0.5 * len(rows) + 1.4)
        for place, (row, results) in enumerate(zip(rows, values, strict=True)):
            axes.plot(results, np.full(len(results), place), "o", color=GREY, markersize=4, alpha=0.6)
            if row.mean is not None:
                width = row.mean.half_width or 0.0
                axes.errorbar(row.mean.mean, place, xerr=width, fmt="o", color=BLUE, capsize=4, markersize=7)
        labels = [row.label if row.trained else f"{row.label}\n(head not trained)" for row in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set(xlabel=metric, title=self.experiment.title)
        return figure


def _verdict(metric: Metric, difference: Interval | None) -> str:
    if difference is None or not difference.excludes_zero:
        return ""
    direction = "lower" if difference.mean < 0 else "higher"
    if metric.better is None:
        return direction
    return f"{direction}: {'better' if direction == metric.better else 'worse'}"


def _block(rows: list[Row], metric: Metric) -> list[str]:
    """The lines of one metric, in columns."""
    cells = [("", "mean", "difference to the first", "")]
    for row in rows:
        mean = _show(row.mean, metric.decimals) if row.trained else "head not trained"
        difference = "" if row.difference is None else _show(row.difference, metric.decimals, sign="+")
        cells.append((row.label, mean, difference, row.verdict))
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    return ["  " + "   ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells]


def _show(interval: Interval | None, decimals: int, sign: str = "") -> str:
    if interval is None:
        return "no result"
    mean = f"{interval.mean:{sign},.{decimals}f}"
    return mean if interval.half_width is None else f"{mean} ± {interval.half_width:,.{decimals}f}"

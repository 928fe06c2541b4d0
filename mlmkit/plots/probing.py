"""What linear probes read, and whether probabilities can be believed; always with the intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from mlmkit.plots.look import BLUE, GREEN, GREY, ORANGE, PURPLE, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Proportion(Protocol):
    """What the pictures read of `mlmkit.inspection.Share`."""

    @property
    def value(self) -> float: ...  # noqa: D102

    @property
    def low(self) -> float: ...  # noqa: D102

    @property
    def high(self) -> float: ...  # noqa: D102


class Judged(Protocol):
    """What the pictures read of `mlmkit.inspection.Probe`."""

    @property
    def accuracy(self) -> Proportion: ...  # noqa: D102


class Relation(Protocol):
    """What the picture reads of `mlmkit.inspection.SentenceRelation`."""

    @property
    def cls(self) -> Judged: ...  # noqa: D102

    @property
    def mean(self) -> Judged: ...  # noqa: D102

    @property
    def bag(self) -> Judged: ...  # noqa: D102

    @property
    def untrained_cls(self) -> Judged: ...  # noqa: D102

    @property
    def untrained_mean(self) -> Judged: ...  # noqa: D102

    @property
    def ceiling(self) -> Proportion | None: ...  # noqa: D102


class Order(Protocol):
    """What the picture reads of `mlmkit.inspection.WordOrder`."""

    @property
    def trained(self) -> Sequence[Judged]: ...  # noqa: D102

    @property
    def untrained(self) -> Sequence[Judged]: ...  # noqa: D102

    @property
    def control(self) -> Sequence[Judged]: ...  # noqa: D102

    @property
    def ceiling(self) -> Proportion | None: ...  # noqa: D102


class Part(Protocol):
    """What the picture reads of `mlmkit.inspection.Bin`."""

    @property
    def confidence(self) -> float: ...  # noqa: D102

    @property
    def accuracy(self) -> Proportion: ...  # noqa: D102


class Calibrated(Protocol):
    """What the picture reads of `mlmkit.inspection.Calibration`."""

    @property
    def bins(self) -> Sequence[Part]: ...  # noqa: D102

    @property
    def ece(self) -> float: ...  # noqa: D102

    @property
    def chance(self) -> float: ...  # noqa: D102


def _errors(shares: Sequence[Proportion]) -> list[list[float]]:
    """How far the intervals reach below and above the values."""
    return [[s.value - s.low for s in shares], [s.high - s.value for s in shares]]


def _coin_and_ceiling(axes: Axes, ceiling: Proportion | None) -> None:
    """Lines between which all accuracies lie."""
    axes.axhline(0.5, color=ORANGE, linestyle="--", linewidth=1.2, label="a coin")
    if ceiling is not None:
        axes.axhline(ceiling.value, color=GREEN, linewidth=1.2, label=f"perfect reader = {ceiling.value:.3f}")


@style()
def plot_sentence_relation(models: Mapping[str, Relation]) -> Figure:
    """Draw how often linear probes tell whether B follows A, for one model or several, with 95 % intervals.

    Args:
        models: name → result, for example "with NSP" and "without NSP".
    """
    rows = [("cls", "[CLS]"), ("mean", "mean vector"), ("bag", "bag of\nembeddings")]
    rows += [("untrained_cls", "[CLS],\nfresh weights"), ("untrained_mean", "mean vector,\nfresh weights")]
    figure, (axes,) = new_figure(width=8.0, height=3.8)
    width = 0.8 / len(models)
    looks = [(BLUE, ""), (PURPLE, "///"), (GREY, "..."), ("#56B4E9", "xxx")]
    for i, (name, found) in enumerate(models.items()):
        shares = [getattr(found, row).accuracy for row, _ in rows]
        places = [j + (i - (len(models) - 1) / 2) * width for j in range(len(rows))]
        color, hatch = looks[i % len(looks)]
        bars = axes.bar(places, [s.value for s in shares], 0.92 * width, color=color, hatch=hatch, label=name)
        for bar in bars:
            bar.set_edgecolor("white")
        axes.errorbar(places, [s.value for s in shares], _errors(shares), fmt="none", ecolor="black", capsize=3)
    _coin_and_ceiling(axes, next(iter(models.values())).ceiling)
    axes.set_xticks(range(len(rows)), [label for _, label in rows])
    axes.set(ylim=(0.4, 1.0), ylabel="share of right answers", title="does B follow A?")
    axes.grid(axis="x", visible=False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(models) + 2)
    return figure


@style()
def plot_word_order(models: Mapping[str, Order]) -> Figure:
    """Draw, layer by layer, how often linear probes tell that two neighboring words were exchanged.

    Args:
        models: name → result; one panel each, with the network of fresh weights and the control in it.
    """
    figure, panels = new_figure(columns=len(models), width=5.2 * len(models) + 1.0, height=3.9)
    lines = [("trained", BLUE, "o", "-"), ("untrained", GREY, "s", ":"), ("control", PURPLE, "^", "-.")]
    names = {"trained": "trained", "untrained": "fresh weights", "control": "trained, answers by coin"}
    for axes, (title, found) in zip(panels, models.items(), strict=True):
        for kind, color, marker, line in lines:
            shares = [probe.accuracy for probe in getattr(found, kind)]
            axes.errorbar(
                range(len(shares)),
                [s.value for s in shares],
                _errors(shares),
                color=color,
                marker=marker,
                linestyle=line,
                capsize=3,
                label=names[kind],
            )
        _coin_and_ceiling(axes, found.ceiling)
        depth = len(found.trained)
        axes.set_xticks(range(depth), ["embeddings", *(f"layer {layer}" for layer in range(depth - 1))])
        if depth > 5:
            axes.tick_params(axis="x", labelrotation=90)
        axes.set(title=title, ylim=(0.4, 1.0), ylabel="share of right answers", xlim=(-0.3, depth - 0.7))
    figure.suptitle("were two neighboring words exchanged?", fontsize=11)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


@style()
def plot_calibration(models: Mapping[str, Calibrated]) -> Figure:
    """Draw how often the best answer was right against its probability, in bins of equal number, with 95 % intervals.

    On the diagonal the probabilities can be believed; below it the model claims too much.

    Args:
        models: name → result.
    """
    figure, (axes,) = new_figure(width=5.4, height=5.0)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1.2, label="as it should be")
    looks = [(BLUE, "o"), (ORANGE, "s"), (PURPLE, "^"), (GREEN, "D")]
    for i, (name, found) in enumerate(models.items()):
        shares = [part.accuracy for part in found.bins]
        color, marker = looks[i % len(looks)]
        label = f"{name}: ECE {found.ece:.3f} (by chance {found.chance:.3f})"
        x = [part.confidence for part in found.bins]
        axes.errorbar(x, [s.value for s in shares], _errors(shares), color=color, marker=marker, capsize=3, label=label)
    reached = max(max(part.confidence, part.accuracy.high) for found in models.values() for part in found.bins)
    axes.set(xlim=(0, min(1.15 * reached, 1.0)), ylim=(0, min(1.15 * reached, 1.0)), aspect="equal")
    axes.set(xlabel="probability of the best answer", ylabel="share of right answers")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center")
    return figure

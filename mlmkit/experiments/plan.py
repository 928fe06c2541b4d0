"""What an experiment compares: a grid of configurations × seeds, from Python or from a TOML file."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mlmkit.config import RunConfig
from mlmkit.errors import UserError
from mlmkit.exact import is_solved
from mlmkit.experiments.metrics import METRICS, default_metrics
from mlmkit.presets import PRESETS
from mlmkit.settings import nearest

Grid = dict[str, list[Any]]
"""`section.field` → its values; `section.field,section.field` → lists of values that belong together."""

FILE_KEYS = ("title", "question", "preset", "set", "grid", "seeds", "metrics")


@dataclass(frozen=True)
class Configuration:
    """One row of the comparison."""

    label: str
    config: RunConfig


@dataclass(frozen=True)
class Job:
    """One run: a configuration with a seed."""

    name: str
    row: int
    seed: int
    config: RunConfig


@dataclass(frozen=True)
class Experiment:
    """A base configuration, what is varied in it, and how often each is repeated.

    Args:
        base: what all runs share. Its masking also makes the common questions by which all are judged.
        grid: values by field; every combination is a configuration, the first field varying slowest.
        seeds: of the runs of each configuration.
        metrics: names of `METRICS` to show; by default three.
        title, question: what it is about.

    Raises:
        UserError: a field, value, metric or seed does not fit.
    """

    base: RunConfig
    grid: Grid
    seeds: tuple[int, ...]
    metrics: tuple[str, ...] = ()
    title: str = ""
    question: str = ""

    def __post_init__(self) -> None:
        _check_seeds(self.seeds)
        exact = self.base.data.corpus.split(":")[0] == "exact" and is_solved(self.base.masking)
        object.__setattr__(self, "metrics", self.metrics or default_metrics(exact))
        for name in self.metrics:
            if name not in METRICS:
                raise UserError(f"there is no metric {name!r}{nearest(name, METRICS)}; there are {', '.join(METRICS)}")
            if METRICS[name].exact and not exact:
                raise UserError(
                    f"the metric {name} needs text and masking whose best answer is known: start from the preset "
                    f"exact, got data.corpus={self.base.data.corpus} with masking.unit={self.base.masking.unit} and "
                    f"masking.count={self.base.masking.count}"
                )
        self.configurations()

    def configurations(self) -> list[Configuration]:
        """Every combination of the grid, in order."""
        if not self.grid:
            raise UserError('the grid is empty: name a field and its values, for example "train.lr" = [1e-3, 4e-3]')
        columns = [_column(key, values) for key, values in self.grid.items()]
        _refuse_repeats([key.strip() for keys in self.grid for key in keys.split(",")], "the grid names {} twice")
        found = []
        for choice in itertools.product(*columns):
            settings = [setting for settings in choice for setting in settings]
            label = " ".join(setting.partition(".")[2] for setting in settings)
            found.append(Configuration(label, self.base.override(settings)))
        _refuse_repeats([c.label for c in found], "two configurations are the same: {}")
        return found

    def jobs(self) -> Iterator[Job]:
        """All runs, seed by seed, so that an early look sees every configuration; each with one thread."""
        rows = self.configurations()
        for seed in self.seeds:
            for number, row in enumerate(rows):
                train = replace(row.config.train, seed=seed, threads=1)
                yield Job(f"{number:02d}-seed{seed}", number, seed, replace(row.config, train=train))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "title": self.title,
            "question": self.question,
            "base": self.base.to_dict(),
            "grid": self.grid,
            "seeds": list(self.seeds),
            "metrics": list(self.metrics),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Experiment:
        """Rebuild what `to_dict` gave."""
        base = RunConfig.from_dict(data["base"])
        return cls(base, data["grid"], tuple(data["seeds"]), tuple(data["metrics"]), data["title"], data["question"])


def read_seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """5 means 0 … 4; a list is taken as it is."""
    return tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)


def read_experiment(path: str | Path) -> Experiment:
    """Read a TOML file with title, question, preset, [set], [grid], seeds and metrics.

    Raises:
        UserError: the file is missing or no TOML, a key is unknown, or a value does not fit.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); name a TOML file with a [grid]") from None
    except ValueError as error:
        raise UserError(f"{path} is not TOML: {error}") from None
    try:
        return _from_file(data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _from_file(data: Mapping[str, Any]) -> Experiment:
    kinds = {"title": str, "question": str, "preset": str, "set": dict, "grid": dict, "metrics": list}
    for key, value in data.items():
        if key not in FILE_KEYS:
            raise UserError(f"there is no key {key!r}{nearest(key, FILE_KEYS)}; there are {', '.join(FILE_KEYS)}")
        if not isinstance(value, kinds.get(key, object)):
            raise UserError(
                f"{key} must be a {({str: 'text', dict: 'table', list: 'list'})[kinds[key]]}, got {value!r}"
            )
    preset = data.get("preset", "exact")
    if preset not in PRESETS:
        raise UserError(f"there is no preset {preset!r}{nearest(preset, PRESETS)}; choose one of {', '.join(PRESETS)}")
    seeds = data.get("seeds", 5)
    if not isinstance(seeds, int | list):
        raise UserError(f"seeds must be a number of seeds or a list of them, got {seeds!r}")
    return Experiment(
        base=PRESETS[preset].override(f"{key}={value}" for key, value in _flat(data.get("set", {})).items()),
        grid=_flat(data.get("grid", {})),
        seeds=read_seeds(seeds),
        metrics=tuple(data.get("metrics", ())),
        title=data.get("title", ""),
        question=data.get("question", ""),
    )


def _flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`train.lr = 1` without quotes is a table in a table for TOML: join the names again."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _column(key: str, values: Any) -> list[list[str]]:
    """The settings of each value of a field, or of fields that vary together."""
    names = [name.strip() for name in key.split(",")]
    if "train.seed" in names or "train.threads" in names:
        raise UserError(
            "the grid cannot vary train.seed or train.threads: `seeds` gives the seeds, a run has one thread"
        )
    if not isinstance(values, list | tuple) or not values:
        raise UserError(f"the grid needs a list of values for {key}, got {values!r}")
    found = []
    for value in values:
        parts = value if len(names) > 1 else [value]
        if not isinstance(parts, list | tuple) or len(parts) != len(names):
            raise UserError(f"each value of {key} must be a list of {len(names)}, got {value!r}")
        found.append([f"{name}={part}" for name, part in zip(names, parts, strict=True)])
    return found


def _refuse_repeats(names: Sequence[str], message: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(message.format(name))


def _check_seeds(seeds: Sequence[Any]) -> None:
    whole = all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in seeds)
    if not seeds or not whole or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds must be different whole numbers from 0 on, at least one, got {list(seeds)}")

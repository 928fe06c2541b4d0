"""The record of a run: what was measured, when, against which baselines, on what machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mlmkit.errors import UserError
from mlmkit.evaluation import Baselines
from mlmkit.plots import plot_history
from mlmkit.weights import read_json, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Evaluation:
    """One measurement on the validation part.

    Attributes:
        step: updates done.
        tokens: real tokens seen in training, repetitions counted.
        seconds: wall-clock time since the first update, evaluations included, pauses between resumes left out.
        mlm_loss, mlm_accuracy, nsp_loss, nsp_accuracy: as in `Metrics`.
    """

    step: int
    tokens: int
    seconds: float
    mlm_loss: float
    mlm_accuracy: float
    nsp_loss: float
    nsp_accuracy: float

    def __str__(self) -> str:
        return (
            f"step {self.step:>6}  {self.tokens / 1e6:6.2f} M tokens  {self.seconds:6.0f} s  "
            f"MLM {self.mlm_loss:.3f} nats ({self.mlm_accuracy:.1%})  NSP {self.nsp_loss:.3f} ({self.nsp_accuracy:.1%})"
        )


@dataclass
class History:
    """Everything that `metrics.json` holds.

    Attributes:
        config: the resolved configuration.
        corpus: name, fingerprint and report of the corpus.
        baselines: what the curve must get below.
        hardware, versions: where it ran.
        status: "running", "finished", "stopped early" or "interrupted".
        evaluations: measurements on the validation part, in order.
        training: mean training losses, gradient norm and learning rate over windows of updates.
    """

    config: dict[str, Any]
    corpus: dict[str, Any]
    baselines: Baselines
    hardware: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    status: str = "running"
    evaluations: list[Evaluation] = field(default_factory=list)
    training: list[dict[str, float]] = field(default_factory=list)

    @property
    def best(self) -> Evaluation:
        """The evaluation with the lowest held-out MLM loss.

        Raises:
            UserError: nothing was evaluated yet.
        """
        if not self.evaluations:
            raise UserError("the run has no evaluation yet")
        return min(self.evaluations, key=lambda e: e.mlm_loss)

    @property
    def last(self) -> Evaluation:
        """The newest evaluation."""
        if not self.evaluations:
            raise UserError("the run has no evaluation yet")
        return self.evaluations[-1]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in `metrics.json`."""
        data = asdict(self)
        data["unigram_entropy"] = self.baselines.unigram_entropy
        data["corpus_fingerprint"] = self.corpus.get("fingerprint")
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> History:
        """Rebuild what `to_dict` gave.

        Raises:
            UserError: something is missing.
        """
        try:
            return cls(
                config=data["config"],
                corpus=data["corpus"],
                baselines=Baselines(**data["baselines"]),
                hardware=data["hardware"],
                versions=data["versions"],
                status=data["status"],
                evaluations=[Evaluation(**e) for e in data["evaluations"]],
                training=data["training"],
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"these are not the metrics of a run: {type(error).__name__} {error}") from None

    def save(self, path: Path) -> None:
        """Write `metrics.json` in one step."""
        write_json(path, self.to_dict())

    @classmethod
    def load(cls, run_dir: str | Path) -> History:
        """Read `metrics.json` of a run folder.

        Raises:
            UserError: it is missing or damaged.
        """
        path = Path(run_dir) / "metrics.json"
        data = read_json(path)
        try:
            return cls.from_dict(data)
        except UserError as error:
            raise UserError(f"{path} is damaged: {error}; put a good copy in its place") from None

    def plot(self) -> Figure:
        """Draw both held-out losses between their baselines; see `mlmkit.plots.plot_history`."""
        return plot_history(self)


def describe_hardware(device: torch.device, precision: str) -> dict[str, Any]:
    """Say on what a run was computed."""
    name = str(torch.cpu.get_capabilities().get("cpu_name", "")) if hasattr(torch.cpu, "get_capabilities") else ""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "cpu": name or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "system": f"{platform.system()} {platform.machine()}",
    }


def describe_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for package in ("mlmkit", "torch", "numpy", "tokenizers", "datasets"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found

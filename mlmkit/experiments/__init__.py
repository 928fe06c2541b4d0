"""Controlled comparisons: configurations × seeds, each run in a process of its own, judged on common questions."""

from __future__ import annotations

from mlmkit.experiments.metrics import METRICS, Metric
from mlmkit.experiments.plan import Configuration, Experiment, read_experiment
from mlmkit.experiments.result import Result, Row
from mlmkit.experiments.running import experiment, run_experiment

__all__ = [
    "METRICS",
    "Configuration",
    "Experiment",
    "Metric",
    "Result",
    "Row",
    "experiment",
    "read_experiment",
    "run_experiment",
]

"""Exact answers on a small language: posteriors, the lowest possible loss, and what is lost on the way there."""

from __future__ import annotations

from mlmkit.exact.chain import chain_by_masks, chain_by_prefix, log_probability
from mlmkit.exact.estimates import Estimate, ratio
from mlmkit.exact.floors import (
    Distance,
    IdealLosses,
    NSPOptimum,
    distance_to_floor,
    exact_batches,
    ideal_losses,
    kl_divergence,
    mlm_floor,
    nsp_optimum,
)
from mlmkit.exact.gaps import ContextGain, DependencyGap, context_gain, dependency_gap
from mlmkit.exact.inference import (
    BERT,
    FIRST_WORD,
    check_policy,
    is_solved,
    joint_log_probability,
    log_evidence,
    next_log_odds,
    posterior,
)
from mlmkit.exact.order import order_blind_bound
from mlmkit.exact.report import FloorReport, describe, floor_report

__all__ = [
    "BERT",
    "FIRST_WORD",
    "ContextGain",
    "DependencyGap",
    "Distance",
    "Estimate",
    "FloorReport",
    "IdealLosses",
    "NSPOptimum",
    "chain_by_masks",
    "chain_by_prefix",
    "check_policy",
    "context_gain",
    "dependency_gap",
    "describe",
    "distance_to_floor",
    "exact_batches",
    "floor_report",
    "ideal_losses",
    "is_solved",
    "joint_log_probability",
    "kl_divergence",
    "log_evidence",
    "log_probability",
    "mlm_floor",
    "next_log_odds",
    "nsp_optimum",
    "order_blind_bound",
    "posterior",
    "ratio",
]

"""Looking inside a trained BERT: what its heads read, what its vectors hold, how far its probabilities can be believed.

Each function returns the numbers; the pictures of them are in `mlmkit.plots`.
"""

from __future__ import annotations

from mlmkit.inspection.attention import AttentionMaps, Habits, attention_habits, attention_maps, attention_weights
from mlmkit.inspection.embeddings import Entering, Neighbors, embedding_neighbors, what_enters
from mlmkit.inspection.linear import Probe, linear_probe
from mlmkit.inspection.order import WordOrder, probe_word_order
from mlmkit.inspection.projection import Projection, project_embeddings, word_classes
from mlmkit.inspection.reading import hidden_states, untrained
from mlmkit.inspection.relation import SentenceRelation, probe_sentence_relation
from mlmkit.inspection.reliability import Bin, Calibration, calibration, reliability
from mlmkit.inspection.report import Report, inspect_run

__all__ = [
    "AttentionMaps",
    "Bin",
    "Calibration",
    "Entering",
    "Habits",
    "Neighbors",
    "Probe",
    "Projection",
    "Report",
    "SentenceRelation",
    "WordOrder",
    "attention_habits",
    "attention_maps",
    "attention_weights",
    "calibration",
    "embedding_neighbors",
    "hidden_states",
    "inspect_run",
    "linear_probe",
    "probe_sentence_relation",
    "probe_word_order",
    "project_embeddings",
    "reliability",
    "untrained",
    "what_enters",
    "word_classes",
]

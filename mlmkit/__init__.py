"""mlmkit: how BERT is pre-trained, as a package one can read from top to bottom.

The modules follow the data, and a module imports only from those before it:
errors → intervals → language → corpus → tokenizer → pairs → masking → batches → exact → settings → config → presets →
model → flops → losses → evaluation → weights → checkpoint → plots → history → exchange → vocabulary → preparation →
optimization → run_folder → pretraining → finetuning → inspection → experiments → objectives → diagnosis → widgets →
course → syllabus → grading → cli.

Shapes are written at the end of the line that makes them: B batch, S sequence, H hidden, A heads, D head size,
V vocabulary, M selected positions of the batch.

>>> from mlmkit import PRESETS, pretrain, fill_mask
>>> run = pretrain(PRESETS["smoke"], "runs/first")          # doctest: +SKIP
>>> fill_mask(run.model, run.tokenizer, "returns a new [MASK]")  # doctest: +SKIP
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "errors": ["UserError"],
    "language": ["Language", "draw_language", "language_named"],
    "corpus": ["Corpus", "load_corpus", "sample_corpus"],
    "tokenizer": ["Tokenizer", "load_tokenizer", "train_wordpiece", "word_tokenizer"],
    "pairs": ["lay_out", "make_pairs", "tokenize_corpus"],
    "masking": ["IGNORE", "MaskingPolicy", "candidates", "corrupt", "mlm_labels", "select", "units"],
    "batches": ["Batches", "collate"],
    "exact": ["distance_to_floor", "exact_batches", "mlm_floor", "nsp_optimum", "posterior"],
    "config": ["DataConfig", "ModelConfig", "RunConfig", "StartConfig", "TrainConfig"],
    "presets": ["PRESETS"],
    "model": ["BertForPreTraining", "Encoder", "MLMHead", "NSPHead"],
    "losses": ["Losses", "mlm_loss", "nsp_loss", "pretraining_loss"],
    "evaluation": [
        "evaluate",
        "fill_mask",
        "mlm_accuracy",
        "nsp_accuracy",
        "pseudo_log_likelihood",
        "unigram_entropy",
    ],
    "checkpoint": ["load", "save"],
    "history": ["History"],
    "exchange": ["Imported", "export_hf", "import_hf"],
    "vocabulary": ["add_embeddings", "add_words", "frequent_words"],
    "preparation": ["prepare"],
    "optimization": ["learning_rate", "train_step"],
    "pretraining": ["Run", "pretrain"],
    "experiments": ["experiment"],
    "finetuning": ["FinetuneConfig", "Task", "bag_of_words", "compare", "finetune", "load_classifier", "load_task"],
    "inspection": [
        "attention_maps",
        "calibration",
        "embedding_neighbors",
        "inspect_run",
        "probe_sentence_relation",
        "probe_word_order",
        "project_embeddings",
    ],
    "diagnosis": ["Diagnosis", "Finding", "diagnose", "diagnose_batch", "record"],
    "course": ["learned"],
}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from mlmkit.batches import Batches, collate
    from mlmkit.checkpoint import load, save
    from mlmkit.config import DataConfig, ModelConfig, RunConfig, StartConfig, TrainConfig
    from mlmkit.corpus import Corpus, load_corpus, sample_corpus
    from mlmkit.course import learned
    from mlmkit.diagnosis import Diagnosis, Finding, diagnose, diagnose_batch, record
    from mlmkit.errors import UserError
    from mlmkit.evaluation import (
        evaluate,
        fill_mask,
        mlm_accuracy,
        nsp_accuracy,
        pseudo_log_likelihood,
        unigram_entropy,
    )
    from mlmkit.exact import distance_to_floor, exact_batches, mlm_floor, nsp_optimum, posterior
    from mlmkit.exchange import Imported, export_hf, import_hf
    from mlmkit.experiments import experiment
    from mlmkit.finetuning import (
        FinetuneConfig,
        Task,
        bag_of_words,
        compare,
        finetune,
        load_classifier,
        load_task,
    )
    from mlmkit.history import History
    from mlmkit.inspection import (
        attention_maps,
        calibration,
        embedding_neighbors,
        inspect_run,
        probe_sentence_relation,
        probe_word_order,
        project_embeddings,
    )
    from mlmkit.language import Language, draw_language, language_named
    from mlmkit.losses import Losses, mlm_loss, nsp_loss, pretraining_loss
    from mlmkit.masking import IGNORE, MaskingPolicy, candidates, corrupt, mlm_labels, select, units
    from mlmkit.model import BertForPreTraining, Encoder, MLMHead, NSPHead
    from mlmkit.optimization import learning_rate, train_step
    from mlmkit.pairs import lay_out, make_pairs, tokenize_corpus
    from mlmkit.preparation import prepare
    from mlmkit.presets import PRESETS
    from mlmkit.pretraining import Run, pretrain
    from mlmkit.tokenizer import Tokenizer, load_tokenizer, train_wordpiece, word_tokenizer
    from mlmkit.vocabulary import add_embeddings, add_words, frequent_words


def __getattr__(name: str) -> Any:
    """Import a module when one of its names is first asked for: `import mlmkit` itself is light."""
    if name not in _HOME:
        raise AttributeError(f"module 'mlmkit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mlmkit.{_HOME[name]}"), name)

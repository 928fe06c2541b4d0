"""The small pipeline of `pipeline` with one fault planted in it, by name: what a diagnosis must find.

Each function is the wrong version of the part it replaces; `PIPELINES` says which. None of them raises an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mlmkit.batches import Batch
from mlmkit.diagnosis.pipeline import (
    PEAK,
    POLICY,
    Bools,
    Document,
    Ints,
    Losses,
    Pair,
    Pipeline,
    build,
    pair,
    run,
    warm_up,
)
from mlmkit.errors import UserError
from mlmkit.losses import mlm_loss, nsp_loss
from mlmkit.masking import IGNORE, corrupt, mlm_labels
from mlmkit.model import BertForPreTraining
from mlmkit.pairs import IS_NEXT, IS_RANDOM
from mlmkit.settings import nearest
from mlmkit.tokenizer import Tokenizer


def split_with_duplicates(documents: list[Document]) -> tuple[list[Document], list[Document]]:
    """What is held out stays in the training part."""
    return documents, documents[::5]


def pair_at_random(documents: list[Document], rng: np.random.Generator) -> list[Pair]:
    """Every B is drawn from another document."""
    return [p for p in pair(documents, rng) + pair(documents, rng) if p.label == IS_RANDOM]


def pair_within_document(documents: list[Document], rng: np.random.Generator) -> list[Pair]:
    """The random B is another sentence of the same document."""
    return [
        Pair(document[i], document[i + 1], IS_NEXT)
        if rng.random() < 0.5
        else Pair(document[i], document[(i + rng.integers(2, 6)) % 6], IS_RANDOM)
        for document in documents
        for i in (0, 2, 4)
    ]


def segments_zero(second: Bools) -> Ints:
    """B looks like A."""
    return np.zeros(second.shape, dtype=np.int64)


def choose_anything(x: Ints, tokenizer: Tokenizer, rng: np.random.Generator) -> Bools:
    """Select 15 % of all positions, whatever stands there."""
    return rng.random(x.shape) < POLICY.rate


def replace_by_any_id(x: Ints, selected: Bools, tokenizer: Tokenizer, rng: np.random.Generator) -> Ints:
    """The random id is drawn from the whole vocabulary, special tokens included."""
    ids = np.arange(tokenizer.vocab_size)
    return corrupt(x, selected, POLICY, rng, mask_id=tokenizer.mask_id, ordinary_ids=ids)


def label_everything(x: Ints, corrupted: Ints, selected: Bools) -> Ints:
    """Every real token has a label."""
    return np.where(x > 0, x, IGNORE)


def label_after_corruption(x: Ints, corrupted: Ints, selected: Bools) -> Ints:
    """The labels are read from x̄."""
    return mlm_labels(corrupted, selected)


def mask_once(make: Callable[[], Batch]) -> Iterator[Batch]:
    """Mask the text once and show the result in every epoch."""
    masked = make()
    while True:
        yield masked


def build_untied(counts: Ints) -> BertForPreTraining:
    """The decoder has a matrix of its own."""
    model = build(counts)
    model.mlm.decoder.weight = nn.Parameter(model.mlm.decoder.weight.detach().clone())
    return model


def build_without_bias(counts: Ints) -> BertForPreTraining:
    """The decoder has no bias."""
    model = build(counts)
    model.mlm.decoder.register_parameter("bias", None)
    return model


def eval_mode(model: BertForPreTraining) -> None:
    """As an evaluation has left it."""
    model.eval()


def heads_in_train_mode(model: BertForPreTraining) -> None:
    """Only the heads are switched back; the encoder keeps its dropout off."""
    model.train()
    model.encoder.eval()


def losses_without_attention_mask(model: BertForPreTraining, batch: Batch) -> tuple[Tensor, Tensor]:
    """The model is not told what is padding."""
    output = model(batch["input_ids"], batch["token_type_ids"])
    return mlm_loss(output.mlm_logits, batch["labels"]), nsp_loss(output.nsp_logits, batch["next_sentence_label"])


def losses_everywhere(model: BertForPreTraining, batch: Batch) -> tuple[Tensor, Tensor]:
    """Every position is to be predicted."""
    output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
    everything = F.cross_entropy(output.mlm_logits.flatten(0, 1), batch["true_ids"].flatten())
    return everything, nsp_loss(output.nsp_logits, batch["next_sentence_label"])


def losses_averaged_too_early(model: BertForPreTraining, batch: Batch) -> tuple[Tensor, Tensor]:
    """The mean over all slots is a single number; multiplying it by the weights removes no slot."""
    output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
    weights = (batch["labels"] != IGNORE).float()  # 0 at the slots that should not count
    filled = batch["labels"].clamp(min=0)  # which hold 0, the id of [PAD]
    mean = F.cross_entropy(output.mlm_logits.flatten(0, 1), filled.flatten())
    return (mean * weights).sum() / weights.sum(), nsp_loss(output.nsp_logits, batch["next_sentence_label"])


def losses_with_one_criterion(model: BertForPreTraining, batch: Batch) -> tuple[Tensor, Tensor]:
    """The criterion that ignores the filler 0 of the MLM labels also ignores the NSP label 0."""
    output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
    criterion = nn.CrossEntropyLoss(ignore_index=0)
    filled = batch["labels"].clamp(min=0)
    mlm = criterion(output.mlm_logits.flatten(0, 1), filled.flatten())
    return mlm, criterion(output.nsp_logits, batch["next_sentence_label"])


def update_without_zeroing(
    model: BertForPreTraining, optimizer: torch.optim.Optimizer, batch: Batch, losses: Losses
) -> None:
    """The gradients of all earlier batches are still there."""
    mlm, nsp = losses(model, batch)
    (mlm + nsp).backward()
    optimizer.step()


def update_twice(model: BertForPreTraining, optimizer: torch.optim.Optimizer, batch: Batch, losses: Losses) -> None:
    """A step for each loss, the second with weights that the first has moved."""
    for which in (0, 1):
        optimizer.zero_grad()
        losses(model, batch)[which].backward()
        optimizer.step()


def far_too_high_at_once(step: int) -> float:
    """Two hundred times the peak, from the first update on."""
    return 200 * PEAK


def far_too_low(step: int) -> float:
    """The network never leaves the plateau of the word frequencies."""
    return 0.01 * warm_up(step)


PIPELINES: dict[str, Pipeline] = {
    "none": Pipeline(),
    "loss_on_all_positions": Pipeline(losses=losses_everywhere),
    "labels_outside_selection": Pipeline(label=label_everything),
    "specials_selected": Pipeline(choose=choose_anything),
    "no_attention_mask": Pipeline(losses=losses_without_attention_mask),
    "random_from_specials": Pipeline(replace=replace_by_any_id),
    "static_masks": Pipeline(epochs=mask_once),
    "weights_not_tied": Pipeline(build=build_untied),
    "decoder_bias_missing": Pipeline(build=build_without_bias),
    "no_warmup_divergence": Pipeline(rate=far_too_high_at_once),
    "gradients_not_zeroed": Pipeline(update=update_without_zeroing),
    "eval_mode": Pipeline(mode=eval_mode),
    "dropout_off": Pipeline(mode=heads_in_train_mode),
    "labels_after_corruption": Pipeline(label=label_after_corruption),
    "segments_all_zero": Pipeline(segments=segments_zero),
    "nsp_labels_constant": Pipeline(pair=pair_at_random),
    "nsp_negatives_from_same_document": Pipeline(pair=pair_within_document),
    "two_updates_per_batch": Pipeline(update=update_twice),
    "duplicates_across_split": Pipeline(split=split_with_duplicates),
    "stuck_at_unigram": Pipeline(rate=far_too_low, steps=350),
    "averaged_before_weights": Pipeline(losses=losses_averaged_too_early),
    "nsp_ignore_index_zero": Pipeline(losses=losses_with_one_criterion),
}
"""The right pipeline, under "none", and one for each fault of the catalog."""


def plant(fault: str, out_dir: str | Path, seed: int = 0, steps: int | None = None) -> Path:
    """Run the small pipeline with one fault in it, and leave a record that `diagnose` can read.

    Args:
        fault: a key of `FAULTS`, or "none" for the right pipeline.
        out_dir: an empty or new folder.
        seed: of text, weights, masks and dropout.
        steps: updates; default: as many as are needed to see the fault.

    Returns:
        The folder.

    Raises:
        UserError: there is no such fault.
    """
    if fault not in PIPELINES:
        raise UserError(f"there is no fault {fault!r}{nearest(fault, PIPELINES)}; choose one of {', '.join(PIPELINES)}")
    parts = PIPELINES[fault]
    folder = Path(out_dir)
    run(parts, folder, seed, parts.steps if steps is None else steps)
    return folder

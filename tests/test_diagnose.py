"""Runs and loops: each planted fault is named by its name, healthy ones raise nothing, and watching changes nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from functools import cache
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import confusion
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import small_model
from runs import Finished, documents, finished_run, hurry, make_corpus, tiny, write_text
from torch import Tensor, nn

from mlmkit import pretraining
from mlmkit.cli import main
from mlmkit.config import RunConfig
from mlmkit.corpus import Corpus
from mlmkit.diagnosis import FAULTS, Diagnosis, Finding, diagnose, plant, record
from mlmkit.diagnosis import pipeline as parts
from mlmkit.diagnosis.evidence import BATCHES, EVIDENCE, Evidence, Pass
from mlmkit.diagnosis.gradients import read_mlm
from mlmkit.diagnosis.keeping import POINTS, ROWS, KeptBatches, KeptCurve, KeptLabels
from mlmkit.diagnosis.planted import PIPELINES
from mlmkit.diagnosis.recorder import Recorder
from mlmkit.diagnosis.run import diagnose_evidence
from mlmkit.diagnosis.steps import averaged_before_weights, loss_on_all_positions
from mlmkit.errors import UserError
from mlmkit.losses import mlm_loss, nsp_loss
from mlmkit.masking import IGNORE
from mlmkit.model import BertForPreTraining, Output
from mlmkit.optimization import train_step
from mlmkit.presets import PRESETS
from mlmkit.weights import read_tensors, write_tensors

Batch = dict[str, Tensor]


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planted")


# Planted faults

QUICK = [fault for fault in FAULTS if fault != "stuck_at_unigram"]


@pytest.mark.parametrize("fault", QUICK)
def test_a_planted_fault_is_named_and_nothing_else_is(fault: str, place: Path):
    found = confusion.diagnosis_of(fault, 0, place)
    assert found.faults == (fault,), str(found)
    assert any(character.isdigit() for character in found.findings[0].evidence), "the evidence shows a number"
    assert math.isfinite(found.findings[0].value)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_the_seed(fault: str, seed: int, place: Path):
    assert confusion.diagnosis_of(fault, seed, place).faults == (fault,)


@pytest.mark.slow
def test_a_loss_that_stays_at_the_unigram_entropy_is_named(place: Path):
    assert confusion.diagnosis_of("stuck_at_unigram", 0, place).faults == ("stuck_at_unigram",)


@pytest.mark.parametrize("seed", confusion.SEEDS)
def test_the_right_pipeline_raises_nothing(seed: int, place: Path):
    found = confusion.diagnosis_of("none", seed, place)
    assert not found, str(found)
    assert set(found.checked) | {"stuck_at_unigram"} == set(FAULTS), "everything else could be looked for"


@pytest.mark.slow
def test_the_right_pipeline_raises_nothing_after_it_has_left_the_plateau(tmp_path: Path):
    found = diagnose(plant("none", tmp_path, steps=600))
    assert not found, str(found)
    assert set(found.checked) == set(FAULTS)


@pytest.mark.slow
def test_the_table_on_the_page_is_what_comes_out(place: Path):
    named = {
        fault: Counter(name for seed in confusion.SEEDS for name in confusion.diagnosis_of(fault, seed, place).faults)
        for fault in confusion.PLANTED
    }
    assert confusion.written() == confusion.table(named, len(confusion.SEEDS))


def test_the_length_of_the_warm_up_is_read_from_the_record(place: Path):
    found = confusion.diagnosis_of("no_warmup_divergence", 0, place)
    assert "at its peak after 0 updates" in found.findings[0].evidence


def test_there_is_a_pipeline_for_each_fault():
    assert set(PIPELINES) == {"none", *FAULTS}


def test_a_fault_that_does_not_exist_is_answered_with_the_nearest(tmp_path: Path):
    with pytest.raises(UserError, match="did you mean 'static_masks'"):
        plant("static_mask", tmp_path)


# The recorder: a loop as anyone writes it


TOKENIZER = parts.word_tokenizer(parts.language_named("market").words)


@cache
def batches(count: int) -> list[Batch]:
    """The first batches of the right pipeline."""
    rng = np.random.default_rng(0)
    pairs = parts.pair(parts.sample_documents(TOKENIZER, 100, rng), rng)
    text = parts.lay_out(pairs, TOKENIZER, parts.Pipeline())
    epochs = parts.mask_each_epoch(lambda: parts.mask(text, TOKENIZER, parts.Pipeline(), rng))
    return [
        {name: values for name, values in batch.items() if name != "true_ids"}
        for batch in islice(parts.batches(epochs, rng), count)
    ]


def network(**changes: Any) -> BertForPreTraining:
    return small_model(vocab_size=TOKENIZER.vocab_size, **changes).train()


def sum_of_losses(model: nn.Module, batch: Batch) -> Tensor:
    output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
    return mlm_loss(output.mlm_logits, batch["labels"]) + nsp_loss(output.nsp_logits, batch["next_sentence_label"])


def loop(
    recorder: Recorder,
    stream: list[Batch],
    loss: Callable[[Any, Batch], Tensor] = sum_of_losses,
    watch: bool = True,
) -> Diagnosis:
    """A plain loop around whatever model and optimizer the recorder was made for."""
    with recorder:
        for batch in recorder.watch(stream) if watch else stream:
            recorder.optimizer.zero_grad()
            loss(recorder.model, batch).backward()
            recorder.optimizer.step()
    return diagnose_evidence(recorder.evidence)


def watched(model: nn.Module | None = None, **options: Any) -> Recorder:
    model = model or network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return record(model, optimizer, tokenizer=TOKENIZER, **options)


def test_a_plain_loop_raises_nothing():
    found = loop(watched(), batches(12))
    assert not found, str(found)
    assert "nsp_negatives_from_same_document" in found.not_checked


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_watching_a_loop_does_not_change_its_weights(dropout: float, tmp_path: Path):
    def train(watch: bool) -> list[Tensor]:
        model = network(hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        corpus = make_corpus(tmp_path / "corpus")
        recorder = record(model, optimizer, tmp_path / str(watch), tokenizer=TOKENIZER, corpus=corpus, batches=3)
        torch.manual_seed(3)
        with recorder if watch else torch.enable_grad():
            for batch in recorder.watch(batches(6)) if watch else batches(6):
                train_step(model, batch, optimizer, lr=1e-2)
        return [p.detach() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(train(True), train(False), strict=True))


def hooks(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    return sum(len(m._forward_hooks) for m in model.modules()) + len(optimizer._optimizer_step_post_hooks)


def test_all_hooks_are_gone_afterwards_and_the_record_is_written_also_after_an_error(tmp_path: Path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def interrupted_loop() -> None:
        with record(model, optimizer, tmp_path, tokenizer=TOKENIZER) as recorder:
            for number, batch in enumerate(recorder.watch(batches(5))):
                assert hooks(model, optimizer) > 0
                train_step(model, batch, optimizer, lr=0.1)
                if number == 2:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_loop()
    assert hooks(model, optimizer) == 0
    assert Evidence.read(tmp_path).updates == 3


def test_the_record_of_a_loop_that_never_ran_a_model_says_so(tmp_path: Path):
    model = network()
    with record(model, torch.optim.SGD(model.parameters()), tmp_path, tokenizer=TOKENIZER):
        pass
    assert hooks(model, torch.optim.SGD(model.parameters())) == 0
    found = diagnose(tmp_path)
    assert not found
    assert not found.checked
    assert set(found.not_checked) == set(FAULTS)


def test_a_loop_that_is_still_running_can_be_diagnosed(tmp_path: Path):
    model = network(hidden_dropout_prob=0.1).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with record(model, optimizer, tmp_path, tokenizer=TOKENIZER, batches=4) as recorder:
        for number, batch in enumerate(recorder.watch(batches(6))):
            train_step(model, batch, optimizer, lr=0.1)
            if number == 4:
                assert "eval_mode" in diagnose(tmp_path).faults


def test_what_is_read_is_what_was_written(tmp_path: Path):
    model = network()
    recorder = record(model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path, tokenizer=TOKENIZER)
    loop(recorder, batches(4))
    read = Evidence.read(tmp_path)
    for field in dataclasses.fields(Evidence):
        if field.name != "batches":
            assert getattr(read, field.name) == getattr(recorder.evidence, field.name), field.name
    for ours, theirs in zip(read.batches, recorder.evidence.batches, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_folder_takes_one_record(tmp_path: Path):
    loop(watched(out_dir=tmp_path), batches(2))
    with pytest.raises(UserError, match="already holds a record"):
        watched(out_dir=tmp_path)


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    loop(watched(), batches(2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ['{"updates": 3}', "{", '{"specials": {"pad": 0}, "structure": {}, "passes": []}'])
def test_a_damaged_record_is_said_to_be_damaged(damage: str, tmp_path: Path):
    loop(watched(out_dir=tmp_path), batches(2))
    (tmp_path / EVIDENCE).write_text(damage)
    with pytest.raises(UserError, match="damaged"):
        diagnose(tmp_path)
    (tmp_path / BATCHES).unlink()
    with pytest.raises(UserError, match=r"does not exist|damaged"):
        diagnose(tmp_path)


def test_evaluations_between_the_updates_are_not_taken_for_updates():
    def with_evaluation(model: BertForPreTraining, batch: Batch) -> Tensor:
        model.eval()
        with torch.no_grad():
            sum_of_losses(model, batch)
        sum_of_losses(model, batch)  # with gradients, but nothing is sent backward
        return sum_of_losses(model.train(), batch)

    model = network(hidden_dropout_prob=0.1)
    recorder = watched(model)
    assert not loop(recorder, batches(6), with_evaluation)
    assert (recorder.evidence.backward, recorder.evidence.in_eval_mode) == (6, 0)
    unwatched = watched(network(hidden_dropout_prob=0.1))
    loop(unwatched, batches(6), with_evaluation, watch=False)
    assert len(unwatched.evidence.batches) == 6, "one for each update, none for the evaluations"


def test_gathering_gradients_over_two_batches_is_no_fault():
    recorder = watched()
    with recorder:
        for number, batch in enumerate(recorder.watch(batches(8))):
            (sum_of_losses(recorder.model, batch) / 2).backward()
            if number % 2:
                recorder.optimizer.step()
                recorder.optimizer.zero_grad(set_to_none=False)
    found = diagnose_evidence(recorder.evidence)
    assert not found, str(found)
    assert len(recorder.evidence.curve) == 4


def test_a_loop_that_cuts_its_batches_up_raises_nothing():
    def in_halves(model: nn.Module, batch: Batch) -> Tensor:
        halves = ({name: values[rows] for name, values in batch.items()} for rows in (slice(0, 16), slice(16, 32)))
        return torch.stack([sum_of_losses(model, half) for half in halves]).sum()

    found = loop(watched(), batches(6), in_halves)
    assert not found
    assert "MLM logits" in found.not_checked["loss_on_all_positions"]


def test_each_loss_may_have_a_backward_pass_of_its_own():
    recorder = watched()
    with recorder:
        for batch in recorder.watch(batches(6)):
            recorder.optimizer.zero_grad()
            output = recorder.model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
            mlm_loss(output.mlm_logits, batch["labels"]).backward(retain_graph=True)
            nsp_loss(output.nsp_logits, batch["next_sentence_label"]).backward()
            recorder.optimizer.step()
    found = diagnose_evidence(recorder.evidence)
    assert not found, str(found)
    assert {"gradients_not_zeroed", "nsp_ignore_index_zero"} <= set(found.checked)


def test_a_fault_that_begins_after_the_first_batches_is_seen():
    recorder = watched(network(hidden_dropout_prob=0.1), batches=2)
    with recorder:
        for number, batch in enumerate(recorder.watch(batches(10))):
            recorder.model.train(number < 5)
            train_step(recorder.model, batch, recorder.optimizer, lr=1e-3)
    found = diagnose_evidence(recorder.evidence)
    assert set(found.faults) == {"eval_mode"}
    assert "5 of 10" in found.findings[-1].evidence


# The recorder: models of several kinds


class Wrapped(nn.Module):
    """A model inside another, as in data-parallel training."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any, **named: Any) -> Any:
        return self.module(*inputs, **named)


class Names(nn.Module):
    """A model with other names for what it returns, and a dictionary for what it takes."""

    def __init__(self, module: BertForPreTraining) -> None:
        super().__init__()
        self.bert = module
        self.config = module.config

    def forward(self, inputs: Batch) -> dict[str, Tensor]:
        output = self.bert(inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"])
        return {"logits": output.mlm_logits}


def mlm_only(model: nn.Module, batch: Batch) -> Tensor:
    return mlm_loss(model(batch)["logits"], batch["labels"])


def test_a_wrapped_model_is_looked_into():
    model = Wrapped(network(hidden_dropout_prob=0.1).eval())
    recorder = watched(model)
    assert recorder.evidence.dropout == 0.1
    found = loop(recorder, batches(6))
    assert model.training, "only the model inside was left in evaluation mode"
    assert set(found.faults) == {"eval_mode"}
    assert "loss_on_all_positions" in found.checked


def test_a_model_without_a_sentence_head_has_that_part_not_checked():
    recorder = watched(Names(network()).train())
    found = loop(recorder, batches(6), mlm_only)
    assert not found, str(found)
    assert "NSP" in found.not_checked["nsp_ignore_index_zero"]
    assert "loss_on_all_positions" in found.checked


def test_a_model_that_returns_no_logits_by_name_is_left_alone():
    class Silent(Names):
        def forward(self, inputs: Batch) -> Any:
            return tuple(super().forward(inputs).values())

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return mlm_loss(model(batch)[0], batch["labels"])

    found = loop(watched(Silent(network()).train()), batches(3), loss)
    assert not found
    assert "no backward pass was seen" in found.not_checked["eval_mode"]


def test_logits_at_the_selected_positions_only_are_matched_with_their_labels():
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        selected = batch["labels"] != IGNORE
        output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"], selected)
        return mlm_loss(output.mlm_logits, batch["labels"][selected]) + nsp_loss(
            output.nsp_logits, batch["next_sentence_label"]
        )

    recorder = watched()
    found = loop(recorder, batches(6), loss)
    assert not found
    assert {seen.unlabeled for seen in recorder.evidence.passes} == {0}
    assert {"loss_on_all_positions", "averaged_before_weights"} <= set(found.checked)


def test_a_selection_that_is_larger_than_the_labels_is_seen():
    """Logits for every real token, and a loss that takes them all."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        real = batch["attention_mask"].bool()
        output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"], real)
        true = torch.where(batch["labels"] != IGNORE, batch["labels"], batch["input_ids"])
        return F.cross_entropy(output.mlm_logits, true[real])

    assert "loss_on_all_positions" in loop(watched(), batches(6), loss).faults


def test_a_bias_added_after_the_decoder_is_not_called_missing():
    class Added(Names):
        def __init__(self, module: BertForPreTraining) -> None:
            super().__init__(module)
            module.mlm.decoder.register_parameter("bias", None)
            self.extra = nn.Parameter(torch.zeros(module.config.vocab_size))

        def forward(self, inputs: Batch) -> dict[str, Tensor]:
            return {"logits": super().forward(inputs)["logits"] + self.extra}

    found = loop(watched(Added(network()).train()), batches(4), mlm_only)
    assert not found
    assert "not the output of a linear layer" in found.not_checked["decoder_bias_missing"]
    assert "weights_not_tied" in found.checked


def test_a_decoder_that_is_no_layer_is_not_judged():
    class Functional(Names):
        def forward(self, inputs: Batch) -> dict[str, Tensor]:
            hidden = self.bert.encoder(inputs["input_ids"], inputs["token_type_ids"], inputs["attention_mask"])
            return {"logits": hidden @ self.bert.encoder.embeddings.token.weight.T}

    found = loop(watched(Functional(network()).train()), batches(4), mlm_only)
    assert not found
    assert {"weights_not_tied", "decoder_bias_missing"} <= set(found.not_checked)


def test_a_bias_that_the_optimizer_does_not_train_is_missing():
    model = network()
    trained = [p for name, p in model.named_parameters() if name != "mlm.decoder.bias"]
    recorder = record(model, torch.optim.AdamW(trained, lr=1e-3), tokenizer=TOKENIZER)
    assert set(loop(recorder, batches(4)).faults) == {"decoder_bias_missing"}


def test_dropout_of_attention_alone_counts_as_dropout():
    """It is no layer in our model, but a number of the attention."""
    model = network(attention_probs_dropout_prob=0.2)
    assert not loop(watched(model), batches(4))
    model.encoder.eval()
    assert set(loop(watched(model), batches(4)).faults) == {"dropout_off"}


def test_a_mask_for_each_query_is_not_judged():
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(**batch).mlm_logits.flatten(0, 1), batch["labels"].flatten())

    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = network()

        def forward(self, input_ids: Tensor, attention_mask: Tensor, **others: Any) -> Output:
            return self.bert(input_ids)

    stream = [{**b, "attention_mask": b["attention_mask"][:, None, None, :]} for b in batches(4)]
    recorder = watched(Causal().train())
    found = loop(recorder, stream, loss)
    assert "shape" in found.not_checked["specials_selected"]
    assert {seen.visible_padding for seen in recorder.evidence.passes} == {0}


def test_arguments_in_any_form_are_understood():
    """By position, by name, beyond the signature, and as a dictionary."""

    class Loose(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = network()

        def forward(self) -> None:
            raise NotImplementedError

        def __call__(self, *args: Any, **named: Any) -> Any:
            return super().__call__(*args, **named)

    from mlmkit.diagnosis.calls import read_call

    batch = batches(1)[0]
    model = network()
    output = model(batch["input_ids"])
    ids = batch["input_ids"]
    for args, named in (((ids,), {}), ((), {"input_ids": ids}), ((batch,), {})):
        call = read_call(model, args, named, output, batch, None)
        assert call is not None
        assert torch.equal(call.ids, ids)
    assert read_call(model, (ids, 1, 2, 3, 4, 5), {}, output, batch, None) is None
    assert read_call(model, (), {"inputs_embeds": ids.float()}, output, batch, None) is None


def test_logits_that_fit_no_labels_are_not_judged():
    from mlmkit.diagnosis.calls import match_rows

    ids = torch.zeros(2, 5, dtype=torch.long)
    labels = torch.full((2, 5), IGNORE)
    labels[0, 1] = 7
    assert match_rows(torch.zeros(3, 9), ids, labels, None) is None
    rows = match_rows(torch.zeros(1, 9), ids, labels, None)
    assert rows is not None
    assert rows[1].tolist() == [7]


# The recorder: losses that look like faults and are none, and faults that hide


def test_zeros_as_labels_are_no_fault_where_the_loss_ignores_them():
    """A pipeline with its own convention: label 0 outside the selection, and a criterion that ignores 0."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
        mlm = F.cross_entropy(output.mlm_logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=0)
        return mlm + nsp_loss(output.nsp_logits, batch["next_sentence_label"])

    def zeros(batch: Batch) -> Batch:
        return {**batch, "labels": batch["labels"].clamp(min=0)}

    recorder = watched()
    found = loop(recorder, [zeros(b) for b in batches(12)], loss)
    assert recorder.evidence.ignored_label == 0
    assert not found, str(found)
    found = loop(watched(), [zeros(b) for b in batches(12)])  # the usual loss takes them as words
    assert "labels_outside_selection" in found.faults


def test_a_regularizer_on_all_logits_is_reported_as_what_it_is():
    """A pull at unlabeled positions that asks for no token in particular is no filler."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
        mlm = mlm_loss(output.mlm_logits, batch["labels"])
        return mlm + 0.1 * output.mlm_logits.logsumexp(-1).square().mean()

    assert set(loop(watched(), batches(4), loss).faults) == {"loss_on_all_positions"}


def test_a_loss_that_strays_to_padding_only_is_named():
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
        labels = torch.where(batch["attention_mask"] == 0, 0, batch["labels"])
        return mlm_loss(output.mlm_logits, labels)

    assert set(loop(watched(), batches(4), loss).faults) == {"loss_on_all_positions"}


def test_at_padding_a_filler_and_a_loss_on_all_positions_ask_for_the_same():
    """Six stray positions, four of them [PAD], all asked for [PAD]: the two others tell that it is a filler."""
    seen = Pass(step=0, padding=4, visible_padding=0, pairs_read=0, pairs_told_apart=0)
    gradient = torch.full((7, 9), 0.1)
    gradient[:, 0] = -0.8
    ids, labels = torch.tensor([5, 6, 7, 0, 0, 0, 0]), torch.full((7,), IGNORE)
    labels[0] = 8
    read_mlm(seen, gradient, ids, labels, pad_id=0)
    assert (seen.unlabeled, seen.reached, seen.toward_own, seen.toward_other, seen.other_token) == (6, 6, 0, 2, 0)
    assert seen.reached_share == pytest.approx(6 / 7)


def test_a_few_positions_that_ask_for_one_other_token_make_no_filler():
    seen = Pass(step=0, padding=0, visible_padding=0, pairs_read=0, pairs_told_apart=0)
    seen.unlabeled, seen.reached, seen.reached_share = 12, 12, 0.5
    seen.toward_own, seen.toward_other, seen.other_token, seen.other_share = 10, 2, 0, 1.0
    assert averaged_before_weights([seen]) is None
    assert isinstance(loss_on_all_positions([seen]), Finding)


def test_segments_that_never_reach_the_model_are_missed():
    """The batch is right; the call is not."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        output = model(batch["input_ids"], None, batch["attention_mask"])
        return mlm_loss(output.mlm_logits, batch["labels"]) + nsp_loss(output.nsp_logits, batch["next_sentence_label"])

    found = loop(watched(), batches(4), loss)
    assert found.faults == ("segments_all_zero",)
    assert "the model was given segment 0" in found.findings[0].evidence


def test_a_sentence_loss_of_weight_zero_is_silent_about_all_pairs_and_no_fault():
    recorder = watched()
    with recorder:
        for batch in recorder.watch(batches(4)):
            train_step(recorder.model, batch, recorder.optimizer, lr=1e-3, nsp_weight=0.0)
    found = diagnose_evidence(recorder.evidence)
    assert not found, str(found)


def test_a_batch_that_cannot_be_read_stops_no_training(tmp_path: Path):
    """Labels of the relation that are neither 0 nor 1: the loop runs, the checks of the batch do not, and say why."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
        return mlm_loss(output.mlm_logits, batch["labels"])

    odd = [{**b, "next_sentence_label": b["next_sentence_label"][:, None] + 3} for b in batches(3)]
    found = loop(watched(corpus=make_corpus(tmp_path)), odd, loss)
    assert not found
    assert "must be 0 or 1" in found.not_checked["static_masks"]
    assert "must be 0 or 1" in found.not_checked["nsp_negatives_from_same_document"]
    assert "duplicates_across_split" in found.checked or "needed" in found.not_checked["duplicates_across_split"]


def test_a_corpus_without_a_training_part_stops_no_training(tmp_path: Path):
    corpus = Corpus.from_documents("half", {"validation": documents(3)}, tmp_path)
    found = loop(watched(corpus=corpus), batches(2))
    assert "no split 'train'" in found.not_checked["nsp_negatives_from_same_document"]
    assert "duplicates_across_split" in found.not_checked


def test_without_watch_the_calls_of_the_model_are_recorded():
    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return sum_of_losses(model.bert, batch)

    class Called(nn.Module):
        """Takes labels as the models of `transformers` do, and returns their loss."""

        def __init__(self) -> None:
            super().__init__()
            self.bert = network()

        def forward(self, input_ids: Tensor, labels: Tensor, next_sentence_label: Tensor, **others: Tensor) -> Any:
            output = self.bert(input_ids, others["token_type_ids"], others["attention_mask"])
            loss = mlm_loss(output.mlm_logits, labels) + nsp_loss(output.nsp_logits, next_sentence_label)
            return SimpleNamespace(
                loss=loss, prediction_logits=output.mlm_logits, seq_relationship_logits=output.nsp_logits
            )

    found = loop(watched(Called()), batches(12), lambda model, batch: model(**batch).loss, watch=False)
    assert not found, str(found)
    assert {"labels_outside_selection", "static_masks", "nsp_labels_constant"} <= set(found.checked)
    assert "watch" in found.not_checked["two_updates_per_batch"]


def test_batches_that_are_no_dictionaries_pass_through():
    recorder = watched()
    with recorder:
        seen = list(recorder.watch([(1, 2), "text"]))
    assert seen == [(1, 2), "text"]
    assert recorder.evidence.watched == 2


@pytest.mark.slow  # importing transformers takes long
@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({}, ()),
        ({"attention_mask": None}, ("no_attention_mask",)),
        ({"token_type_ids": None}, ("segments_all_zero",)),
        ("eval", ("eval_mode",)),
        ("untied", ("weights_not_tied",)),
    ],
    ids=str,
)
def test_a_loop_around_a_model_of_transformers(change: Any, faults: tuple[str, ...]):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=TOKENIZER.vocab_size, max_position_embeddings=32, **sizes)
    model = transformers.BertForPreTraining(config).train(change != "eval")
    if change == "untied":
        decoder = model.cls.predictions.decoder
        decoder.weight = nn.Parameter(decoder.weight.detach().clone())
    given = change if isinstance(change, dict) else {}
    found = loop(watched(model), batches(12), lambda model, batch: model(**{**batch, **given}).loss)
    assert found.faults == faults, str(found)
    assert {"weights_not_tied", "decoder_bias_missing", "dropout_off", "nsp_ignore_index_zero"} <= set(found.checked)


# What is kept of a long loop


def test_a_long_curve_is_thinned_and_keeps_its_means_and_its_ends():
    curve, updates = KeptCurve(), 3 * POINTS
    for step in range(1, updates + 1):
        curve.add(step, lr=step / updates, losses={"mlm": torch.tensor(float(step))})
        if step % 100 == 0:
            curve.read()
    assert len(curve.rows) < POINTS
    assert curve.rows[-1]["step"] == updates
    assert curve.rows[-1]["lr"] == 1
    windows = len(curve.rows)
    mean = sum(row["mlm"] for row in curve.rows) / windows
    assert mean == pytest.approx((updates + 1) / 2)  # windows are of equal length
    assert [row["step"] for row in curve.rows[:3]] == [4, 8, 12]


def test_a_curve_may_have_updates_without_a_loss():
    curve = KeptCurve()
    curve.add(1, 0.1, {})
    curve.add(2, 0.1, {"mlm": torch.tensor(3.0)})
    curve.read()
    assert curve.rows == [{"step": 1, "lr": 0.1}, {"step": 2, "lr": 0.1, "mlm": 3.0}]


def test_of_later_batches_only_repeated_rows_are_kept():
    kept = KeptBatches(limit=2, pad_id=0)
    ids = torch.arange(5, 5 + 6 * 4).view(6, 4)
    labels = torch.full_like(ids, IGNORE)
    labels[:, 1] = ids[:, 1]
    masked = ids.clone()
    masked[:, 1] = 4
    kept.add({"input_ids": masked[:2], "labels": labels[:2]})
    kept.add({"input_ids": masked[2:4], "labels": labels[2:4]})
    kept.add({"input_ids": ids[3:6]})  # row 3 again, unmasked
    kept.add({"input_ids": ids[4:6]})
    assert [len(b["input_ids"]) for b in kept.first] == [2, 2]
    assert [b["input_ids"].tolist() for b in kept.again] == [ids[3:4].tolist()]
    kept.add({"input_ids": torch.nn.functional.pad(ids[:1], (0, 3))})  # padding is no difference
    assert len(kept.again) == 2
    kept.add({"input_ids": ids[:1]})
    assert len(kept.again) == 2, "no more than the limit"


def test_large_batches_are_cut_and_strange_ones_left_out():
    kept = KeptBatches(limit=3, pad_id=0)
    kept.add({"input_ids": torch.ones(2 * ROWS, 4, dtype=torch.long), "labels": None})
    kept.add({"input_ids": torch.ones(4, dtype=torch.long)})
    kept.add({"text": ["a"]})
    assert [len(b["input_ids"]) for b in kept.first] == [ROWS]


def test_the_unigram_entropy_of_a_few_labels_is_hardly_too_low():
    """500 draws from 100 equally frequent tokens: the plain entropy is 0.1 too low, the corrected one within 0.03."""
    draws = torch.from_numpy(np.random.default_rng(0).integers(0, 100, 500))
    labels = KeptLabels()
    assert labels.entropy() is None
    labels.add(None)
    labels.add(draws[:200])
    labels.add(torch.cat([draws[200:], torch.tensor([IGNORE])]))
    assert labels.total == 500
    found = labels.entropy()
    assert found is not None
    assert found == pytest.approx(math.log(100), abs=0.03)


# Runs of `pretrain`


def prints(folder: Path) -> dict[str, str]:
    """A fingerprint of each file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_run(tmp_path_factory)


def test_a_finished_run_raises_nothing_and_stays_as_it_was(finished: Finished):
    before, state = prints(finished.folder), torch.random.get_rng_state()
    found = diagnose(finished.folder, cache_dir=finished.cache)
    assert not found, str(found)
    assert set(found.checked) | set(found.not_checked) == set(FAULTS)
    assert len(found.checked) >= 18
    assert prints(finished.folder) == before
    assert torch.equal(torch.random.get_rng_state(), state)


EXACT = [
    *("train.max_steps=40", "train.warmup_steps=10", "train.batch_size=32", "train.eval_every=20"),
    *("train.eval_batches=2", "train.device=cpu", "train.precision=fp32", "train.threads=1"),
]
SMOKE = ["train.device=cpu", "train.precision=fp32", "train.threads=1"]
HEALTHY: dict[str, Callable[[Path], RunConfig]] = {
    "smoke": lambda text: PRESETS["smoke"].override([*SMOKE, f"data.corpus={text}", "data.held_out=0.15"]),
    "exact": lambda text: PRESETS["exact"].override([*EXACT, "data.corpus=exact:market:2000"]),
    "forest": lambda text: PRESETS["exact"].override([*EXACT, "data.corpus=exact:forest:2000"]),
    "dropout 0": lambda text: tiny(
        f"data.corpus={text}", "model.hidden_dropout_prob=0", "model.attention_probs_dropout_prob=0"
    ),
    "whole words": lambda text: tiny(f"data.corpus={text}", "masking.unit=word"),
    "spans": lambda text: tiny(f"data.corpus={text}", "masking.unit=span", "masking.count=binomial"),
    "40 %": lambda text: tiny(f"data.corpus={text}", "masking.rate=0.4"),
    "all [MASK]": lambda text: tiny(f"data.corpus={text}", *("masking.mask=1", "masking.random=0", "masking.keep=0")),
    "binomial": lambda text: tiny(f"data.corpus={text}", "masking.count=binomial", "train.nsp_weight=0"),
    "no warm-up": lambda text: tiny(f"data.corpus={text}", "train.warmup_steps=0", "train.output_bias=false"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_runs_raise_nothing(name: str, finished: Finished, tmp_path: Path):
    pretraining.pretrain(HEALTHY[name](finished.text), tmp_path, cache_dir=finished.cache, progress=False)
    found = diagnose(tmp_path, cache_dir=finished.cache)
    assert not found, str(found)
    assert len(found.checked) >= 18, str(found)


def test_a_run_in_progress_and_an_interrupted_one_raise_nothing(finished: Finished, tmp_path: Path):
    """In progress: looked into at each evaluation, the first before any checkpoint was written."""
    seen: list[Diagnosis] = []

    def look(evaluation: Any) -> None:
        seen.append(diagnose(tmp_path, cache_dir=finished.cache))
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(pretraining.Interrupted):
        finished.again(tmp_path, report=look)
    seen.append(diagnose(tmp_path, cache_dir=finished.cache))
    for found in seen:
        assert not found, str(found)
        assert len(found.checked) >= 17


def test_masks_drawn_once_are_seen_in_the_replay(finished: Finished, tmp_path: Path):
    finished.again(tmp_path, "data.dynamic_masks=false", "train.max_steps=4")
    assert diagnose(tmp_path, cache_dir=finished.cache).faults == ("static_masks",)


def test_a_run_on_a_corpus_that_repeats_itself_is_told_so(finished: Finished, tmp_path: Path):
    rows = [[" ".join(document), *document] for document in documents(40)]
    corpus = Corpus.from_documents("twice", {"train": rows, "validation": rows[:9], "test": rows[9:18]}, tmp_path / "c")
    folder = tmp_path / "run"
    pretraining.pretrain(tiny("train.max_steps=4"), folder, corpus=corpus, cache_dir=finished.cache, progress=False)
    found = diagnose(folder, corpus, finished.cache)
    assert found.faults == ("duplicates_across_split",)
    without = diagnose(folder, str(finished.text), finished.cache)
    assert not without
    assert "not that of the run" in without.not_checked["duplicates_across_split"]


def test_what_a_run_has_lost_is_said(finished: Finished, tmp_path: Path):
    text = write_text(tmp_path / "text.txt")
    folder = tmp_path / "run"
    finished.again(folder, f"data.corpus={text}", "train.max_steps=4")
    text.unlink()
    found = diagnose(folder, cache_dir=finished.cache)
    assert not found
    assert "text.txt" in found.not_checked["static_masks"]
    assert "no_warmup_divergence" in {*found.checked, *found.not_checked}
    assert diagnose(folder, str(finished.text), finished.cache).checked, "the same text in another place will do"
    (folder / "metrics.json").unlink()
    assert "no metrics.json yet" in diagnose(folder, str(finished.text), finished.cache).not_checked["stuck_at_unigram"]
    (folder / "tokenizer.json").unlink()
    assert "no tokenizer yet" in diagnose(folder).not_checked["eval_mode"]


def test_a_finished_run_without_its_checkpoints_is_replayed_from_its_model(finished: Finished, tmp_path: Path):
    folder = tmp_path / "run"
    shutil.copytree(finished.folder, folder, ignore=shutil.ignore_patterns("checkpoints"))
    assert len(diagnose(folder, cache_dir=finished.cache).checked) >= 18
    tensors = read_tensors(folder / "model.safetensors")
    write_tensors(folder / "model.safetensors", {name: values * torch.nan for name, values in tensors.items()})
    found = diagnose(folder, cache_dir=finished.cache)
    assert "gradients_not_zeroed" not in found.faults, "its weights are read: nothing of a model of NaN is a number"
    assert "nsp_ignore_index_zero" in found.not_checked


def test_a_folder_that_holds_neither_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="holds neither a run nor a record"):
        diagnose(tmp_path)


def test_the_documents_of_a_record_may_be_given_later(place: Path, finished: Finished):
    confusion.diagnosis_of("eval_mode", 0, place)
    folder = place / "eval_mode-0"
    for corpus in (make_corpus(finished.cache), str(finished.text)):
        assert diagnose(folder, corpus, finished.cache).faults == ("eval_mode",)


# The command


def test_the_command_prints_findings_and_tells_by_its_exit_code(
    finished: Finished, place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLMKIT_CACHE", str(finished.cache))
    confusion.diagnosis_of("eval_mode", 0, place)
    assert main(["diagnose", str(place / "eval_mode-0")]) == 1
    said = capfd.readouterr().out
    for part in ("1 fault found", "eval_mode", "evidence", "24 of 24", "model.train()", "not checked"):
        assert part in said
    assert main(["diagnose", str(finished.folder), "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["findings"] == []
    assert "static_masks" in answer["checked"] + list(answer["not_checked"])


def test_the_command_refuses_what_is_no_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    for folder, word in ((tmp_path / "nowhere", "is not a folder"), (tmp_path, "holds neither")):
        assert main(["diagnose", str(folder)]) == 2
        assert word in capfd.readouterr().err

"""`diagnose`: everything that a folder says about a run, whether it was recorded or is one of `mlmkit pretrain`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch

from mlmkit import checkpoint as ckpt
from mlmkit.batches import Batch
from mlmkit.config import RunConfig
from mlmkit.corpus import Corpus, load_corpus
from mlmkit.diagnosis.batch import diagnose_batch
from mlmkit.diagnosis.curves import Curve, check_curve, curve_of, warmup_updates
from mlmkit.diagnosis.documents import check_split
from mlmkit.diagnosis.evidence import EVIDENCE, Evidence
from mlmkit.diagnosis.findings import FAULTS, Diagnosis, merge
from mlmkit.diagnosis.recorder import record
from mlmkit.diagnosis.rows import Specials
from mlmkit.diagnosis.steps import diagnose_steps
from mlmkit.errors import UserError
from mlmkit.history import History
from mlmkit.masking import IGNORE, MaskingPolicy
from mlmkit.model import BertForPreTraining
from mlmkit.optimization import learning_rate, make_optimizer, train_step
from mlmkit.preparation import Data, build_model, draw_model, prepare
from mlmkit.weights import read_json

DOCUMENTS = 256
"""A run is replayed on so many of its documents, so that two epochs show the same text."""
BATCHES = 20
"""Batches of each of the two epochs that are looked at."""
UPDATES, PAIRS = 4, 16
"""Updates made on a copy of the model, and pairs in each: enough to see where the gradients go."""


def diagnose(run_dir: str | Path, corpus: Corpus | str | None = None, cache_dir: Path | None = None) -> Diagnosis:
    """Name the faults of a run, finished, interrupted or still running, each with the number that proves it.

    A folder written by `record` holds what the loop really did. A run of `mlmkit pretrain` is looked at through its
    curve and its corpus, and replayed: its first batches are made again, and a few updates are made on a copy of its
    newest weights. Nothing is written into the folder.

    Args:
        run_dir: the folder.
        corpus: the documents, or a source as `load_corpus` takes it, where they are not to be found under the name
            that the run gives them; for a record, the documents whose split is to be looked at.
        cache_dir: for corpora and token tables; default `cache_root()`.

    Returns:
        Findings, what was looked for, and what could not be looked for and why.

    Raises:
        UserError: the folder holds neither a record nor a run, or what it holds is damaged.
    """
    folder = Path(run_dir)
    if (folder / EVIDENCE).is_file():
        loaded = load_corpus(corpus, cache_dir=cache_dir) if isinstance(corpus, str) else corpus
        return diagnose_evidence(Evidence.read(folder), loaded)
    if (folder / "run.json").is_file():
        return _diagnose_run(folder, corpus, cache_dir)
    raise UserError(
        f"{folder} holds neither a run nor a record; give a folder of `mlmkit pretrain --out` or of `mlmkit.record`"
    )


def diagnose_evidence(evidence: Evidence, corpus: Corpus | None = None) -> Diagnosis:
    """Name the faults that show in the evidence of a recorder; `corpus` as in `diagnose`."""
    parts = [] if evidence.documents is None else [evidence.documents]
    reason = "no batch was recorded"
    if evidence.batches:
        policy, names = MaskingPolicy(**evidence.policy), _Names(evidence.specials)
        try:
            parts.append(diagnose_batch(_labeled(evidence), names, policy))
            reason = "no corpus was given"
        except UserError as error:
            reason = str(error)
    parts += [diagnose_steps(evidence), check_curve(_recorded_curve(evidence))]
    if corpus is not None:
        parts.append(check_split(corpus))
    return _complete(merge(*parts), reason)


def _labeled(evidence: Evidence) -> list[Batch]:
    """The recorded batches, with −100 where the loop was seen to ignore another label."""
    ignored = evidence.ignored_label
    if ignored is None:
        return evidence.batches
    return [{**b, "labels": b["labels"].masked_fill(b["labels"] == ignored, IGNORE)} for b in evidence.batches]


def _recorded_curve(evidence: Evidence) -> Curve:
    """The reference losses, beside the entropy of the labels that were seen."""
    rows = [row for row in evidence.curve if "mlm" in row]
    before = [0, *(int(row["step"]) for row in rows)]  # updates before the window of each row
    return Curve(
        steps=before[1:],
        losses=[row["mlm"] for row in rows],
        warmup=before[warmup_updates([row["lr"] for row in rows])] if rows else None,
        unigram=evidence.unigram_entropy,
    )


@dataclass(frozen=True)
class _Names:
    """Special ids under the names that `transformers` gives them: all that `diagnose_batch` needs of a tokenizer."""

    specials: Specials

    def __getattr__(self, name: str) -> int:
        return int(getattr(self.specials, name.removesuffix("_token_id")))

    def __len__(self) -> int:
        return self.specials.ordinary + len(self.specials.ids)


def _complete(diagnosis: Diagnosis, reason: str) -> Diagnosis:
    """Say of every fault of the catalog whether it was looked for."""
    known = {*diagnosis.checked, *diagnosis.not_checked}
    return merge(diagnosis, Diagnosis(not_checked={fault: reason for fault in FAULTS if fault not in known}))


def _diagnose_run(folder: Path, corpus: Corpus | str | None, cache_dir: Path | None) -> Diagnosis:
    config = RunConfig.from_dict(read_json(folder / "run.json"))
    if isinstance(corpus, str):
        config, corpus = replace(config, data=replace(config.data, corpus=corpus)), None
    parts, reason = [], "the run has no metrics.json yet"
    fingerprint = None
    if (folder / "metrics.json").is_file():
        history = History.load(folder)
        parts.append(check_curve(curve_of(history)))
        fingerprint = history.corpus.get("fingerprint")
    try:
        data = _open(config, folder, corpus, cache_dir, fingerprint)
        parts += [_replay(config, folder, data), check_split(data.corpus)]
    except UserError as error:
        reason = str(error)
    return _complete(merge(*parts), reason)


def _open(
    config: RunConfig, folder: Path, corpus: Corpus | None, cache_dir: Path | None, fingerprint: str | None
) -> Data:
    """The data of the run; they must be what it was trained on.

    Raises:
        UserError: they are gone or have changed.
    """
    if not (folder / "tokenizer.json").is_file():
        raise UserError("the run has no tokenizer yet")
    data = prepare(config, folder, cache_dir, corpus)
    if fingerprint not in (None, data.corpus.fingerprint):
        raise UserError(f"the corpus is not that of the run: fingerprint {data.corpus.fingerprint}, not {fingerprint}")
    return data


def _replay(config: RunConfig, folder: Path, data: Data) -> Diagnosis:
    """Make a few updates on a copy of the newest weights, under a recorder, and look at two epochs of batches."""
    some = data.tables["train"].select(range(min(DOCUMENTS, len(data.tables["train"]))))
    data = replace(data, tables={**data.tables, "train": some})
    train = replace(config.train, batch_size=2 * PAIRS, device="cpu", precision="fp32")
    data = replace(data, config=replace(config, train=train))
    first, second = (list(islice(data.batches("train", train.seed).epoch(epoch), BATCHES)) for epoch in (0, 1))
    with torch.random.fork_rng():
        model, step = _newest_model(config, data, folder)
        optimizer = make_optimizer(model, train)
        model.train()
        with record(model, optimizer, tokenizer=data.tokenizer, policy=config.masking) as recorder:
            for batch in recorder.watch(_parts(first)):
                lr = learning_rate(min(step, train.max_steps - 1), train)
                train_step(model, batch, optimizer, lr=lr, grad_clip=train.grad_clip, nsp_weight=train.nsp_weight)
    seen = diagnose_batch([*first, *second], data.tokenizer, config.masking, data.corpus)
    return merge(diagnose_steps(recorder.evidence), seen)


def _parts(batches: list[Batch]) -> Iterator[Batch]:
    """Small batches for the updates: the first pairs of the first batches."""
    for batch in batches[:UPDATES]:
        yield {name: tensor[:PAIRS] for name, tensor in batch.items()}


def _newest_model(config: RunConfig, data: Data, folder: Path) -> tuple[BertForPreTraining, int]:
    """The model with the newest weights of the run, or those it starts from, and how many updates they have seen."""
    saved = ckpt.checkpoints(folder / "checkpoints")
    if saved:
        model = draw_model(config, data)
        ckpt.load_weights(model, saved[-1] / "model.safetensors")
        return model, int(read_json(saved[-1] / "state.json")["step"])
    if (folder / "model.safetensors").is_file():
        return ckpt.load(folder)[0], 0
    return build_model(config, data), 0

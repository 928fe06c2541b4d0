"""Watch a training loop without touching it: hooks on the model, on the gradients of its logits, on the optimizer.

The loop may be anyone's. The recorder reads what the model is given, what it returns, which gradients come back to the
logits, and when the optimizer steps. It draws no random number and changes no tensor, so a run ends with the same
weights, bit for bit, with and without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mlmkit.corpus import Corpus
from mlmkit.diagnosis.batch import negatives_from_same_document
from mlmkit.diagnosis.calls import Call, read_call, read_heads
from mlmkit.diagnosis.documents import check_split
from mlmkit.diagnosis.evidence import EVIDENCE, Evidence, Pass
from mlmkit.diagnosis.findings import Diagnosis, Finding, check, merge
from mlmkit.diagnosis.gradients import ignores, look, norm_of, read_mlm, read_nsp
from mlmkit.diagnosis.keeping import KeptBatches, KeptCurve, KeptLabels
from mlmkit.diagnosis.rows import read_rows, special_ids
from mlmkit.diagnosis.structure import Finder, configured_dropout, dropping_modules, unwrapped
from mlmkit.errors import UserError
from mlmkit.masking import MaskingPolicy

WRITE_EVERY = 100
"""Updates between two writes of the record."""


def record(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    out_dir: str | Path | None = None,
    *,
    tokenizer: Any,
    policy: MaskingPolicy | None = None,
    corpus: Corpus | None = None,
    batches: int = 20,
) -> Recorder:
    """Watch a training loop, ours or anyone's, and write what `diagnose` needs.

    Use it as a context around the loop, and hand the batches through `Recorder.watch`. It works for a model that
    returns `mlm_logits` and `nsp_logits` (ours) or `prediction_logits` and `seq_relationship_logits`
    (`transformers.BertForPreTraining`), or `logits` alone (`BertForMaskedLM`).

    Args:
        model: the one that is called in the loop.
        optimizer: the one that steps in the loop.
        out_dir: folder for `evidence.json` and `batches.safetensors`; None: keep the evidence in memory.
        tokenizer: ours or one of `transformers`.
        policy: how the loop means to mask; default BERT's.
        corpus: the documents, for the checks that need them.
        batches: how many batches are looked at in full; the losses and modes are followed to the end.

    Raises:
        UserError: the folder already holds a record.
    """
    folder = None if out_dir is None else Path(out_dir)
    if folder is not None and (folder / EVIDENCE).exists():
        raise UserError(f"{folder} already holds a record ({EVIDENCE}); choose another folder")
    return Recorder(model, optimizer, folder, tokenizer, policy or MaskingPolicy(), corpus, batches)


@dataclass
class _Way:
    """A forward pass on its way to the backward pass: what switched the dropout off, if anything, and what was seen."""

    asleep: str | None
    call: Call | None
    seen: Pass | None
    begun: bool = False


class Recorder:
    """Holds the hooks while the loop runs, and the evidence afterwards. Made by `record`."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        folder: Path | None,
        tokenizer: Any,
        policy: MaskingPolicy,
        corpus: Corpus | None,
        batches: int,
    ) -> None:
        self.model, self.optimizer, self.folder = model, optimizer, folder
        self.tokenizer, self.policy, self.corpus, self.limit = tokenizer, policy, corpus, batches
        self.evidence = Evidence(special_ids(tokenizer), asdict(policy), configured_dropout(model))
        self._batches, self._curve = KeptBatches(batches, self.evidence.specials.pad), KeptCurve()
        self._labels = KeptLabels()
        self._finder, self._handles = Finder(model), list[RemovableHandle]()
        self._dropping = dropping_modules(model)
        self._batch: Mapping[str, Any] | None = None  # the one that was handed through last
        self._steps_on_batch = 0
        self._stepped = False  # since the last backward pass began
        self._losses: list[dict[str, Tensor]] = []  # of the backward passes since the last step

    def __enter__(self) -> Recorder:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        self._finder.attach()
        self._handles = [
            self.model.register_forward_hook(self._after_forward, with_kwargs=True),
            self.optimizer.register_step_post_hook(self._after_step),
        ]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._finder.detach()
        self._end_batch()
        self._write(last=True)

    def watch(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Hand batches through to the loop, and note each: its content, and how many updates follow it."""
        for batch in batches:
            self._end_batch()
            self.evidence.watched += 1
            if isinstance(batch, Mapping):
                self._batch = batch
                self._batches.add(batch)
            yield batch
        self._end_batch()

    def _end_batch(self) -> None:
        self.evidence.stepped_twice += self._steps_on_batch > 1
        self._batch, self._steps_on_batch = None, 0

    def _after_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Look at what went in and came out, and wait for the gradients at the logits."""
        heads = {n: h for n, h in zip(("mlm", "nsp"), read_heads(output), strict=True) if h is not None}
        if not any(head.requires_grad for head in heads.values()):  # an evaluation, or another kind of model
            self._finder.forget()
            return
        call = read_call(unwrapped(module), args, kwargs, output, self._batch or {}, self.evidence.ignored_label)
        way = _Way(self._asleep(), call, self._first_look(call))
        for name, head in heads.items():
            if head.requires_grad:
                head.register_hook(partial(self._gradient_comes, way, name))

    def _asleep(self) -> str | None:
        """What keeps the model from dropping anything, though its configuration asks for it."""
        if not unwrapped(self.model).training:
            return "model"
        dropping = any(module.training for module in self._dropping)
        return "dropout" if self.evidence.dropout > 0 and not dropping else None

    def _first_look(self, call: Call | None) -> Pass | None:
        """The facts of a pass that are known before its gradient; None when enough passes were seen in full."""
        if call is None or len(self.evidence.passes) >= self.limit:
            return None
        if self._finder.handles and call.mlm is not None:
            self.evidence.structure = self._finder.finish(call.ids, call.mlm, self.optimizer)
        return look(call, self.evidence.updates, self.evidence.specials)

    def _gradient_comes(self, way: _Way, name: str, gradient: Tensor) -> None:
        """The backward pass has reached the logits of a head, and no parameter yet if this head is the first."""
        if not way.begun:
            way.begun = True
            self._backward_begins(way)
        seen, call = way.seen, way.call
        if seen is None or call is None:
            return
        if name == "mlm" and call.row_ids is not None and call.row_labels is not None:
            rows = gradient.reshape(-1, gradient.shape[-1])  # (N, V)
            pad_id = self.evidence.specials.pad
            read_mlm(seen, rows, call.row_ids, call.row_labels, pad_id)
            if ignores(rows, call.row_labels, pad_id):
                self.evidence.ignored_label = pad_id
        if name == "nsp" and call.nsp is not None and call.relation is not None:
            read_nsp(seen, gradient, call.nsp, call.relation)

    def _backward_begins(self, way: _Way) -> None:
        evidence = self.evidence
        evidence.backward += 1
        evidence.in_eval_mode += way.asleep == "model"
        evidence.without_dropout += way.asleep == "dropout"
        if way.seen is not None:
            way.seen.left_over = norm_of(self.optimizer) if self._stepped else None
            evidence.passes.append(way.seen)
        self._stepped = False
        if way.call is not None:
            self._losses.append(way.call.reference_losses())
            self._labels.add(way.call.row_labels)
            if not evidence.watched:
                self._batches.add(way.call.as_batch())

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._stepped = True
        self._steps_on_batch += 1
        self.evidence.updates += 1
        losses = {
            name: torch.stack([found[name] for found in self._losses if name in found]).mean()
            for name in set().union(*self._losses)
        }
        self._losses = []
        self._curve.add(self.evidence.updates, max(group["lr"] for group in optimizer.param_groups), losses)
        if self.evidence.updates == self.limit or self.evidence.updates % WRITE_EVERY == 0:
            self._write()

    def _write(self, last: bool = False) -> None:
        """Bring the evidence up to date, and put it on disk if there is a folder for it."""
        evidence = self.evidence
        self._curve.read()
        evidence.curve = self._curve.rows
        evidence.labels, evidence.unigram_entropy = self._labels.total, self._labels.entropy()
        evidence.batches = [*self._batches.first, *self._batches.again]
        if self.corpus is not None and evidence.documents is None and (last or evidence.updates >= self.limit):
            evidence.documents = self._look_at_documents(self.corpus)
        if self.folder is not None:
            evidence.write(self.folder)

    def _look_at_documents(self, corpus: Corpus) -> Diagnosis:
        """Make the checks that need the documents here, since the documents are not put into the folder."""
        outcome: Finding | str | None = "no batch was recorded"
        split = Diagnosis()
        try:
            split = check_split(corpus)
            if self._batches.first:
                rows = read_rows(self._batches.first, self.evidence.specials)
                outcome = negatives_from_same_document(rows, self.tokenizer, corpus)
        except UserError as error:  # no reason to stop anyone's training
            outcome = str(error)
        return merge(split, check("nsp_negatives_from_same_document", outcome))

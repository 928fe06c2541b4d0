"""One network learns one task, with one seed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlmkit.batches import to_device
from mlmkit.config import TrainConfig
from mlmkit.finetuning.encoding import Encoded, batches_of, collate_texts, encode, labels_of
from mlmkit.finetuning.groups import layer_groups, make_optimizer
from mlmkit.finetuning.heads import Network, attach_head
from mlmkit.finetuning.metrics import Scores, confusion_matrix
from mlmkit.finetuning.recipe import FinetuneConfig, rate
from mlmkit.finetuning.task import PARTS, Example, Task, truth
from mlmkit.losses import mlm_loss
from mlmkit.model import BertForPreTraining
from mlmkit.optimization import keep_freed_memory, resolve
from mlmkit.pretraining import TrainingDiverged
from mlmkit.tokenizer import Tokenizer


@dataclass(frozen=True)
class Epoch:
    """One reading of the training part.

    Attributes:
        number: 1, 2, …
        train_loss: mean loss of its updates, with dropout, in nats.
        loss: loss on the validation part, in nats.
        accuracy: accuracy on the validation part.
    """

    number: int
    train_loss: float
    loss: float
    accuracy: float


@dataclass(frozen=True)
class Outcome:
    """What one seed gave.

    Attributes:
        seed: of head, order and dropout.
        validation, test: scores of the kept state.
        epochs: all that were read, in order.
        kept: number of the epoch whose state was kept: the best on the validation part.
        seconds: wall-clock time.
    """

    seed: int
    validation: Scores
    test: Scores
    epochs: tuple[Epoch, ...]
    kept: int
    seconds: float


@dataclass(frozen=True)
class Material:
    """A task as the network reads it: made once, for all seeds."""

    task: Task
    tokenizer: Tokenizer
    max_length: int
    encoded: dict[str, list[Encoded]]

    @property
    def cut(self) -> int:
        """How many examples of all parts were too long."""
        return sum(e.cut for rows in self.encoded.values() for e in rows)


def prepare_task(task: Task, tokenizer: Tokenizer, max_length: int) -> Material:
    """Tokenize all parts."""
    encoded = {part: encode(getattr(task, part), task.kind, tokenizer, max_length) for part in PARTS}
    return Material(task, tokenizer, max_length, encoded)


def resolve_machine(config: FinetuneConfig) -> FinetuneConfig:
    """Replace every "auto" by what this machine has.

    Raises:
        UserError: the device asked for is not there.
    """
    found = resolve(TrainConfig(device=config.device, precision=config.precision))
    return replace(config, device=found.device, precision=found.precision)


def train_one(
    pretrained: BertForPreTraining, material: Material, config: FinetuneConfig, seed: int, from_scratch: bool = False
) -> tuple[Network, Outcome]:
    """Fine-tune once; the state that is best on the validation part is kept, and answers the test part once.

    Best is the highest accuracy; of equal ones the lowest loss.

    Args:
        pretrained: where the encoder comes from; not changed.
        material: the task.
        config: the recipe, with device and precision resolved.
        seed: of head, order and dropout.
        from_scratch: begin with random weights throughout.

    Returns:
        The network, in evaluation mode, and what it gave.

    Raises:
        TrainingDiverged: a loss is no longer finite.
    """
    began = time.perf_counter()
    keep_freed_memory()
    task, device = material.task, torch.device(config.device)
    with _seeded(seed, device):
        network = attach_head(pretrained, task.kind, len(task.labels), config, from_scratch).to(device)
        epochs, kept, best = _train(network, material, config, seed)
    network.load_state_dict(best)
    scores = {part: evaluate_part(network, material, part)[0] for part in ("validation", "test")}
    outcome = Outcome(seed, **scores, epochs=tuple(epochs), kept=kept, seconds=time.perf_counter() - began)
    return network.eval(), outcome


def _train(
    network: Network, material: Material, config: FinetuneConfig, seed: int
) -> tuple[list[Epoch], int, dict[str, Tensor]]:
    """All epochs, the number of the best one, and the state after it."""
    optimizer = make_optimizer(layer_groups(network, config), config)
    encoded = material.encoded["train"]
    updates = config.epochs * math.ceil(len(encoded) / config.batch_size)
    epochs: list[Epoch] = []
    best, state = (-1.0, 0.0), dict[str, Tensor]()
    step = kept = 0
    for number in range(1, config.epochs + 1):
        losses = []
        for rows in batches_of(encoded, config.batch_size, np.random.default_rng([seed, number])):
            losses.append(_update(network, material, rows, optimizer, rate(step, updates, config), config))
            step += 1
        if not math.isfinite(losses[-1]):
            raise TrainingDiverged(f"the loss became {losses[-1]} in epoch {number}; lower lr ({config.lr:g})")
        scores, loss = evaluate_part(network, material, "validation")
        epochs.append(Epoch(number, float(np.mean(losses)), loss, scores.accuracy))
        if (scores.accuracy, -loss) > best or not state:
            best, kept = (scores.accuracy, -loss), number
            state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        if config.patience is not None and number - kept >= config.patience:
            break
    return epochs, kept, state


def _update(
    network: Network,
    material: Material,
    rows: list[int],
    optimizer: torch.optim.Optimizer,
    factor: float,
    config: FinetuneConfig,
) -> float:
    """One forward pass, one backward pass, one update; returns the loss before it."""
    network.train()
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    optimizer.zero_grad(set_to_none=True)
    device = torch.device(config.device)
    autocast = torch.autocast(device.type, torch.bfloat16) if config.precision == "bf16" else nullcontext()
    with autocast:
        loss = _loss(network, material, "train", rows)[0]
    loss.backward()
    learning = [p for p in network.parameters() if p.requires_grad]
    torch.nn.utils.clip_grad_norm_(learning, config.grad_clip if config.grad_clip is not None else math.inf)
    optimizer.step()
    return float(loss.detach())


def _loss(network: Network, material: Material, part: str, rows: Sequence[int]) -> tuple[Tensor, Tensor, int]:
    """Mean −log Pr(label) over the labels of some examples, the scores, and how many labels there are.

    It is the loss of masked words with other classes: an average over the labeled places, −100 everywhere else.
    """
    examples: Sequence[Example] = getattr(material.task, part)
    encoded = [material.encoded[part][i] for i in rows]
    batch = collate_texts(encoded, material.tokenizer.pad_id)
    S = batch["input_ids"].shape[1]
    labels = labels_of(encoded, [examples[i] for i in rows], material.task.kind, S)  # (B,) or (B, S)
    device = next(network.parameters()).device
    logits = network(**to_device(batch, device))  # (B, K) or (B, S, K)
    return mlm_loss(logits, labels.to(device)), logits, sum(len(e.shown) for e in encoded)


def evaluate_part(network: Network, material: Material, part: str, size: int = 64) -> tuple[Scores, float]:
    """Scores and loss (nats) on a part, in fp32, without dropout.

    A word that the network cannot answer, because the text is too long, gets the most frequent label of the training
    part; it counts in the scores and not in the loss.
    """
    task, encoded = material.task, material.encoded[part]
    usual = int(np.bincount(truth(task.train)).argmax())
    answers: list[NDArray[np.int64]] = [np.full(e.units, usual) for e in encoded]
    total, count = 0.0, 0
    network.eval()
    with torch.no_grad():
        for rows in batches_of(encoded, size):
            loss, logits, units = _loss(network, material, part, rows)
            for row, found in zip(rows, logits.argmax(-1).cpu().numpy(), strict=True):
                answers[row][encoded[row].shown] = found if found.ndim == 0 else found[encoded[row].places]
            total, count = total + float(loss) * units, count + units
    scores = Scores(confusion_matrix(truth(getattr(task, part)), np.concatenate(answers), len(task.labels)))
    return scores, total / max(count, 1)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draw from this seed inside, and leave PyTorch's own state outside as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield

"""Fine-tune with several seeds and leave the best network in a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mlmkit.checkpoint import load
from mlmkit.errors import UserError
from mlmkit.exchange import import_hf
from mlmkit.finetuning.heads import Network
from mlmkit.finetuning.recipe import FinetuneConfig
from mlmkit.finetuning.result import FinetuneResult, best_of
from mlmkit.finetuning.saving import Classifier
from mlmkit.finetuning.task import Task
from mlmkit.finetuning.training import Material, Outcome, prepare_task, resolve_machine, train_one
from mlmkit.history import describe_hardware, describe_versions
from mlmkit.model import BertForPreTraining
from mlmkit.tokenizer import Tokenizer
from mlmkit.weights import write_json

Pretrained = str | Path | tuple[BertForPreTraining, Tokenizer]
"""A folder or a name on the Hugging Face hub, or a model with its tokenizer."""
RECORD = "finetune.json"
"""Name of the file with everything that was measured."""


def finetune(
    pretrained: Pretrained,
    task: Task,
    config: FinetuneConfig | None = None,
    *,
    seeds: int | Sequence[int] = 5,
    out_dir: str | Path | None = None,
    from_scratch: bool = False,
    report: Callable[[str], None] | None = None,
) -> FinetuneResult:
    """Fine-tune a pre-trained encoder on a task, with several seeds.

    Each seed begins with the same encoder; it changes the head's first weights, the order of the examples, and
    dropout. One seed is no proof: the spread between seeds is often as large as what is to be shown.

    Args:
        pretrained: a folder that `mlmkit pretrain` wrote, any BERT that `import_hf` opens, or a model with its
            tokenizer; not changed.
        task: from `load_task`.
        config: the recipe; default `FinetuneConfig()`.
        seeds: how many, counted from `config.seed`, or which.
        out_dir: the network that is best on the validation part is saved here, with `finetune.json`: scores, recipe,
            fingerprint of the data, versions, seconds.
        from_scratch: the same network with random weights throughout; only the tokenizer is kept.
        report: called with a line after each seed.

    Raises:
        UserError: folder, recipe and task do not fit.
        TrainingDiverged: a loss is no longer finite.

    >>> finetune("runs/laptop", load_task("train.tsv", test="test.tsv"), seeds=3)    # doctest: +SKIP
    """
    config = resolve_machine(config or FinetuneConfig())
    model, tokenizer = open_pretrained(pretrained)
    numbers = seed_numbers(seeds, config)
    folder = None if out_dir is None else free_folder(Path(out_dir))
    material = prepare_task(task, tokenizer, _max_length(config, model))
    trained: list[tuple[Outcome, Network]] = []
    for seed in numbers:
        network, outcome = train_one(model, material, config, seed, from_scratch)
        trained.append((outcome, network))
        if report:
            report(f"seed {seed}: {_say(outcome)}")
    result = _finish(trained, material, config, from_scratch)
    if folder is not None:
        write_result(result, folder)
    return result


def _finish(
    trained: list[tuple[Outcome, Network]],
    material: Material,
    config: FinetuneConfig,
    from_scratch: bool,
) -> FinetuneResult:
    """Keep the best network, and say where it was trained."""
    outcomes = tuple(outcome for outcome, _ in trained)
    best = best_of(outcomes)
    network = next(network for outcome, network in trained if outcome is best)
    task, device = material.task, torch.device(config.device)
    classifier = Classifier(network, material.tokenizer, task.labels, task.kind, material.max_length)
    machine = {"hardware": describe_hardware(device, config.precision), "versions": describe_versions()}
    return FinetuneResult(task, config, from_scratch, outcomes, classifier, material.cut, machine)


def write_result(result: FinetuneResult, folder: Path) -> None:
    """Leave the best network and everything that was measured in a folder."""
    result.classifier.save(folder)
    write_json(folder / RECORD, result.to_dict())


def _say(outcome: Outcome) -> str:
    return (
        f"validation accuracy {outcome.validation.accuracy:.1%} (epoch {outcome.kept} of {len(outcome.epochs)}), "
        f"test {outcome.test.accuracy:.1%}, {outcome.seconds:.0f} s"
    )


def open_pretrained(pretrained: Pretrained) -> tuple[BertForPreTraining, Tokenizer]:
    """Open a run of ours, or any BERT of `transformers`; a pooler that it lacks is drawn anew.

    Raises:
        UserError: it cannot be found, is damaged or unfinished, or is no BERT.
    """
    if isinstance(pretrained, tuple):
        return pretrained
    if (Path(pretrained) / "run.json").is_file():
        return load(pretrained)
    imported = import_hf(pretrained)
    return imported.model, imported.tokenizer


def seed_numbers(seeds: int | Sequence[int], config: FinetuneConfig) -> list[int]:
    """The seeds themselves.

    Raises:
        UserError: there is none, one is negative, or one stands there twice.
    """
    numbers = list(range(config.seed, config.seed + seeds)) if isinstance(seeds, int) else list(seeds)
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise UserError(f"seeds must be a number of at least 1, or different whole numbers from 0 on, got {seeds!r}")
    return numbers


def free_folder(folder: Path) -> Path:
    """Check that a folder can be written without harm to a pre-trained run or anything else that lies in it.

    Raises:
        UserError: it is a file, or holds something other than a fine-tuned network.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file; the result needs a folder: choose another name")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file():
        raise UserError(f"{folder} is not empty and holds no fine-tuned network; choose another folder")
    return folder


def _max_length(config: FinetuneConfig, model: BertForPreTraining) -> int:
    limit = model.config.max_position_embeddings
    if config.max_length is not None and config.max_length > limit:
        raise UserError(f"max_length={config.max_length}, but the network reads at most {limit} tokens; set it lower")
    return config.max_length or limit


def scratch_recipe(config: FinetuneConfig) -> FinetuneConfig:
    """The same recipe for random weights: nothing is frozen and all layers learn at the full rate.

    Random layers hold nothing to be protected; frozen, or slowed down, they would only make the comparison easy.
    """
    return replace(config, layer_decay=1.0, freeze_layers=None)

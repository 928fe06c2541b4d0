"""Save and load: a folder that `transformers` opens, and checkpoints from which a run goes on bit for bit."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from mlmkit.config import ModelConfig, RunConfig
from mlmkit.errors import UserError
from mlmkit.model import BertForPreTraining
from mlmkit.tokenizer import Tokenizer, load_tokenizer
from mlmkit.weights import (
    DECODER,
    WEIGHT_FILES,
    State,
    from_hf_state,
    is_tied,
    plain_names,
    read_json,
    read_tensors,
    read_weights,
    to_hf_state,
    write_json,
    write_tensors,
)


def save(model: BertForPreTraining, tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write model and tokenizer as a folder that `transformers.AutoModelForPreTraining` opens."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder, max_length=model.config.max_position_embeddings)
    write_json(folder / "config.json", hf_config(model.config))
    write_tensors(folder / "model.safetensors", to_hf_state(model))


def hf_config(config: ModelConfig, architecture: str = "BertForPreTraining") -> dict[str, Any]:
    """What `config.json` says of a model."""
    return {"architectures": [architecture], "model_type": "bert", **asdict(config)}


def load(folder: str | Path) -> tuple[BertForPreTraining, Tokenizer]:
    """Open a folder written by `save`, by `mlmkit pretrain`, or a BertForPreTraining saved by `transformers`.

    A BERT without one of the heads, or on the Hugging Face hub, is opened by `import_hf`.

    Returns:
        The model, in evaluation mode, and its tokenizer.

    Raises:
        UserError: a file is missing, damaged, or describes another architecture, or the run has not finished.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that `mlmkit pretrain --out` wrote")
    if (folder / "run.json").is_file() and not any((folder / n).is_file() for n in WEIGHT_FILES):
        raise UserError(f"{folder} holds a run that has not finished; go on with: mlmkit pretrain --resume {folder}")
    parts = read_parts(folder)
    return assemble(parts, folder), parts.tokenizer


@dataclass(frozen=True)
class Parts:
    """What a folder of a BERT holds.

    Attributes:
        config: size of the network.
        weights: tensors as `plain_names` calls them.
        tokenizer: its vocabulary fits the network.
    """

    config: ModelConfig
    weights: State
    tokenizer: Tokenizer


def read_parts(folder: Path) -> Parts:
    """Read the files of a BERT and check them against each other.

    Two things follow from the files and not from config.json: [PAD] is what the tokenizer calls so; and the decoder
    has a matrix of its own where the weights hold one that is not the word embeddings.

    Raises:
        UserError: a file is missing or damaged, or describes what mlmkit does not compute.
    """
    config, tokenizer = read_model_config(folder / "config.json"), load_tokenizer(folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model in config.json only "
            f"{config.vocab_size}; they do not belong together"
        )
    weights = plain_names(read_weights(folder))
    tied = config.tie_word_embeddings and is_tied(weights)
    if tied:
        weights.pop(DECODER, None)  # the word embeddings under their second name
    return Parts(replace(config, pad_token_id=tokenizer.pad_id, tie_word_embeddings=tied), weights, tokenizer)


def assemble(parts: Parts, folder: Path) -> BertForPreTraining:
    """Make a model, in evaluation mode, of the parts; the folder is named where they do not fit.

    Raises:
        UserError: a weight is missing or has another shape.
    """
    with torch.random.fork_rng(devices=[]):  # the weights drawn here are overwritten
        model = BertForPreTraining(parts.config)
    _fill(model, parts.weights, folder)
    return model.eval()


def read_model_config(path: Path) -> ModelConfig:
    """Read the size of a network from a `config.json` of `transformers`; what it leaves out is as in BERT-base.

    Raises:
        UserError: it is missing or damaged, or describes an architecture that mlmkit does not compute.
    """
    data = read_json(path)
    kind, positions = data.get("model_type", "bert"), data.get("position_embedding_type", "absolute")
    if kind != "bert":
        raise UserError(f"{path} describes model_type={kind!r}; mlmkit reads model_type='bert'")
    if positions != "absolute":
        raise UserError(f"{path} asks for {positions!r} positions; mlmkit computes absolute ones")
    if decoding := [name for name in ("is_decoder", "add_cross_attention") if data.get(name)]:
        raise UserError(f"{path} says {decoding[0]}=true; mlmkit reads encoders, which see both sides")
    known = {f.name for f in fields(ModelConfig)}
    sizes = {"vocab_size": 30_522, **{n: v for n, v in data.items() if n in known and v is not None}}
    try:
        return RunConfig.from_dict({"data": {"max_length": 8}, "model": {**sizes, "pad_token_id": 0}}).model
    except UserError as error:
        raise UserError(f"{path} does not describe a model: {error}") from None


def load_weights(model: BertForPreTraining, path: Path) -> None:
    """Read weights with `transformers`' names into a model.

    Raises:
        UserError: the file is missing, damaged, or does not fit the model.
    """
    _fill(model, read_tensors(path), path)


def _fill(model: BertForPreTraining, weights: State, source: Path) -> None:
    try:
        model.load_state_dict(from_hf_state(weights, model.config))
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def save_checkpoint(
    folder: Path,
    step: int,
    model: BertForPreTraining,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    keep: int = 2,
) -> Path:
    """Write everything from which training goes on, then delete all but the `keep` newest checkpoints.

    A checkpoint is built under another name and renamed when it is complete, and renamed again before it is deleted:
    a kill at any moment leaves whole ones only.

    Args:
        folder: holds the checkpoints `step-0000500`, …
        step: number of updates done.
        model: its weights.
        optimizer: its state, moments included.
        state: plain data, for JSON.
        keep: how many stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_scraps(folder)
    scratch, target = folder / f".tmp-{step}-{os.getpid()}", folder / f"step-{step:07d}"
    scratch.mkdir()
    write_tensors(scratch / "model.safetensors", to_hf_state(model))
    write_tensors(scratch / "optimizer.safetensors", _optimizer_tensors(model, optimizer))
    write_json(scratch / "state.json", {**state, "step": step})
    if target.exists():
        os.replace(target, folder / f".tmp-replaced-{target.name}")
    os.replace(scratch, target)
    for old in checkpoints(folder)[:-keep]:
        os.replace(old, folder / f".tmp-old-{old.name}")
    remove_scraps(folder)
    return target


def remove_scraps(folder: Path) -> None:
    """Delete what a killed process left unfinished in a folder of a run or of checkpoints."""
    for scrap in folder.glob(".*"):
        if scrap.name.startswith(".tmp-"):
            shutil.rmtree(scrap, ignore_errors=True)
        elif re.fullmatch(r"\.\w+\.(json|safetensors)\.\d+", scrap.name):
            scrap.unlink(missing_ok=True)


def checkpoints(folder: Path) -> list[Path]:
    """List the complete checkpoints, oldest first."""
    return sorted(p for p in folder.glob("step-*") if re.fullmatch(r"step-\d{7,}", p.name) and p.is_dir())


def load_checkpoint(path: Path, model: BertForPreTraining, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put weights and optimizer back as they were at the checkpoint, and return the plain state.

    Raises:
        UserError: a file is missing or damaged, or does not fit the model.
    """
    load_weights(model, path / "model.safetensors")
    names = {parameter: name for name, parameter in model.named_parameters()}
    order = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[str, State] = {name: {} for name in order}
    for key, tensor in read_tensors(path / "optimizer.safetensors").items():
        name, _, kind = key.rpartition("/")
        if name not in moments:
            raise UserError(f"{path / 'optimizer.safetensors'} holds {key!r}, which the model does not have")
        moments[name][kind] = tensor
    optimizer.load_state_dict(
        {
            "state": {i: moments[name] for i, name in enumerate(order) if moments[name]},
            "param_groups": optimizer.state_dict()["param_groups"],
        }
    )
    return read_json(path / "state.json")


def _optimizer_tensors(model: BertForPreTraining, optimizer: torch.optim.Optimizer) -> State:
    return {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state[parameter].items()
    }

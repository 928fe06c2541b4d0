"""Save and load: a folder that `transformers` opens, and checkpoints from which a run goes on bit for bit.

Weights are kept in safetensors only, under Hugging Face's names. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mlmkit.config import ModelConfig, RunConfig
from mlmkit.errors import UserError
from mlmkit.model import BertForPreTraining
from mlmkit.tokenizer import Tokenizer, load_tokenizer

State = dict[str, Tensor]

_NAMES = {
    "encoder.embeddings.token": "bert.embeddings.word_embeddings",
    "encoder.embeddings.position": "bert.embeddings.position_embeddings",
    "encoder.embeddings.segment": "bert.embeddings.token_type_embeddings",
    "encoder.embeddings.norm": "bert.embeddings.LayerNorm",
    "mlm.dense": "cls.predictions.transform.dense",
    "mlm.norm": "cls.predictions.transform.LayerNorm",
    "nsp.pooler": "bert.pooler.dense",
    "nsp.relation": "cls.seq_relationship",
}
_LAYER_NAMES = {
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "output_norm": "output.LayerNorm",
}
_QKV = tuple(f"attention.self.{part}" for part in ("query", "key", "value"))


def _name_pairs(layers: int) -> dict[str, str]:
    """Our module names → theirs, apart from the fused query-key-value matrix and the tied decoder."""
    names = dict(_NAMES)
    for i in range(layers):
        names |= {f"encoder.layers.{i}.{a}": f"bert.encoder.layer.{i}.{b}" for a, b in _LAYER_NAMES.items()}
    return names


def to_hf_state(model: BertForPreTraining) -> State:
    """Weights under the names of `transformers.BertForPreTraining`; the tied decoder matrix is not repeated."""
    ours = model.state_dict()
    theirs: State = {}
    for a, b in _name_pairs(model.config.num_hidden_layers).items():
        theirs |= {f"{b}.{kind}": ours[f"{a}.{kind}"] for kind in ("weight", "bias") if f"{a}.{kind}" in ours}
    for i in range(model.config.num_hidden_layers):
        for kind in ("weight", "bias"):
            parts = ours[f"encoder.layers.{i}.attention.qkv.{kind}"].chunk(3)
            theirs |= {f"bert.encoder.layer.{i}.{n}.{kind}": p for n, p in zip(_QKV, parts, strict=True)}
    theirs["cls.predictions.bias"] = ours["mlm.decoder.bias"]
    return {name: tensor.detach().cpu().contiguous() for name, tensor in theirs.items()}


def from_hf_state(theirs: Mapping[str, Tensor], config: ModelConfig) -> State:
    """Turn weights with `transformers`' names into a state for our `BertForPreTraining`.

    Raises:
        UserError: a weight is missing.
    """
    try:
        ours: State = {}
        for a, b in _name_pairs(config.num_hidden_layers).items():
            kinds = ("weight",) if a.startswith("encoder.embeddings") and not a.endswith("norm") else ("weight", "bias")
            ours |= {f"{a}.{kind}": theirs[f"{b}.{kind}"] for kind in kinds}
        for i in range(config.num_hidden_layers):
            for kind in ("weight", "bias"):
                parts = [theirs[f"bert.encoder.layer.{i}.{n}.{kind}"] for n in _QKV]
                ours[f"encoder.layers.{i}.attention.qkv.{kind}"] = torch.cat(parts)
        ours["mlm.decoder.weight"] = theirs["bert.embeddings.word_embeddings.weight"]
        ours["mlm.decoder.bias"] = theirs["cls.predictions.bias"]
    except KeyError as missing:
        raise UserError(f"the weights have no {missing}: they are not those of a BertForPreTraining") from None
    return ours


def save(model: BertForPreTraining, tokenizer: Tokenizer, folder: str | Path) -> None:
    """Write model and tokenizer as a folder that `transformers.AutoModelForPreTraining` opens."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    config = {
        "architectures": ["BertForPreTraining"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "tie_word_embeddings": True,
        **asdict(model.config),
    }
    write_json(folder / "config.json", config)
    write_tensors(folder / "model.safetensors", to_hf_state(model))


def load(folder: str | Path) -> tuple[BertForPreTraining, Tokenizer]:
    """Open a folder written by `save`, by `mlmkit pretrain`, or a BertForPreTraining saved by `transformers`.

    Returns:
        The model, in evaluation mode, and its tokenizer.

    Raises:
        UserError: a file is missing, damaged, or describes another architecture, or the run has not finished.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that `mlmkit pretrain --out` wrote")
    if (folder / "run.json").is_file() and not (folder / "model.safetensors").is_file():
        raise UserError(f"{folder} holds a run that has not finished; go on with: mlmkit pretrain --resume {folder}")
    model = BertForPreTraining(_read_model_config(folder / "config.json"))
    load_weights(model, folder / "model.safetensors")
    return model.eval(), load_tokenizer(folder)


def _read_model_config(path: Path) -> ModelConfig:
    data = read_json(path)
    if data.get("model_type") != "bert" or data.get("hidden_act", "gelu") != "gelu":
        raise UserError(
            f"{path} describes model_type={data.get('model_type')!r} with "
            f"hidden_act={data.get('hidden_act')!r}; mlmkit reads model_type='bert' with hidden_act='gelu'"
        )
    known = {f.name for f in fields(ModelConfig)}
    sizes = {name: value for name, value in data.items() if name in known}
    try:
        return RunConfig.from_dict({"data": {"max_length": 8}, "model": sizes}).model
    except UserError as error:
        raise UserError(f"{path} does not describe a model: {error}") from None


def load_weights(model: BertForPreTraining, path: Path) -> None:
    """Read weights with `transformers`' names into a model.

    Raises:
        UserError: the file is missing, damaged, or does not fit the model.
    """
    tensors = read_tensors(path)
    try:
        model.load_state_dict(from_hf_state(tensors, model.config))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} does not fit the model that its config.json describes: {reason[:300]}") from None


def read_tensors(path: Path) -> State:
    """Read a safetensors file onto the CPU.

    Raises:
        UserError: it is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; is {path.parent} a folder written by `mlmkit pretrain`?")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}); put a good copy in its place") from None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: it is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; is {path.parent} a folder written by `mlmkit pretrain`?")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged, it is not JSON ({error}); put a good copy in its place") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} is damaged, it holds no JSON object; put a good copy in its place")
    return data


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file so that a reader sees either the old or the new one, never a part."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    _flush(scratch)
    os.replace(scratch, path)


def write_tensors(path: Path, tensors: State) -> None:
    """Write a safetensors file in one step, like `write_json`."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    save_file(tensors, scratch, metadata={"format": "pt"})
    scratch.chmod(scratch.parent.stat().st_mode & 0o666)  # `save_file` makes it private
    _flush(scratch)
    os.replace(scratch, path)


def _flush(path: Path) -> None:
    with open(path, "r+b") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())


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

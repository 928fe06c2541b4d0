"""Weights under Hugging Face's names, and the files that hold them.

What we write is safetensors and JSON only. What others wrote may also be a pickle: it is opened so that nothing in it
can run, or refused.
"""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mlmkit.config import ModelConfig
from mlmkit.errors import UserError
from mlmkit.model import BertForPreTraining, Encoder

State = dict[str, Tensor]
"""Tensors by name."""

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Where a folder may keep its weights, the best place first; an index names several files."""

WORDS = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"
DECODER_BIAS = "cls.predictions.bias"
SECOND_DECODER_BIAS = "cls.predictions.decoder.bias"
"""Another name of the same numbers; where both stand in a file, `transformers` computes with this one."""

_ENCODER = {
    "embeddings.token": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.segment": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
}
_LAYER = {
    "attention.out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "output_norm": "output.LayerNorm",
}
_HEADS = {
    "mlm.dense": "cls.predictions.transform.dense",
    "mlm.norm": "cls.predictions.transform.LayerNorm",
    "nsp.pooler": "bert.pooler.dense",
    "nsp.relation": "cls.seq_relationship",
}
_QKV = tuple(f"attention.self.{part}" for part in ("query", "key", "value"))


# --- names ----------------------------------------------------------------------------------------------------


def _encoder_names(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Names in our `Encoder` → theirs: one, or three for the query-key-value matrix, which we keep in one piece."""
    modules: dict[str, tuple[str, ...]] = {ours: (f"bert.{theirs}",) for ours, theirs in _ENCODER.items()}
    for i in range(config.num_hidden_layers):
        layer = f"bert.encoder.layer.{i}"
        modules |= {f"layers.{i}.{ours}": (f"{layer}.{theirs}",) for ours, theirs in _LAYER.items()}
        modules[f"layers.{i}.attention.qkv"] = tuple(f"{layer}.{part}" for part in _QKV)
    return _with_kinds(modules)


def _all_names(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Names in our `BertForPreTraining` → theirs; the tied decoder matrix is the word embeddings."""
    names = {f"encoder.{ours}": theirs for ours, theirs in _encoder_names(config).items()}
    names |= _with_kinds({ours: (theirs,) for ours, theirs in _HEADS.items()})
    names["mlm.decoder.weight"] = (WORDS if config.tie_word_embeddings else DECODER,)
    names["mlm.decoder.bias"] = (DECODER_BIAS,)
    return names


def _with_kinds(modules: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Names of modules → names of their tensors: an embedding has a weight, all others have a bias too."""
    return {
        f"{ours}.{kind}": tuple(f"{their}.{kind}" for their in theirs)
        for ours, theirs in modules.items()
        for kind in (("weight",) if theirs[0].endswith("_embeddings") else ("weight", "bias"))
    }


def _rename(ours: Mapping[str, Tensor], names: Mapping[str, tuple[str, ...]]) -> State:
    """Our tensors under their names."""
    return {
        their: piece
        for our, theirs in names.items()
        for their, piece in zip(theirs, ours[our].chunk(len(theirs)), strict=True)
    }


def _rename_back(theirs: Mapping[str, Tensor], names: Mapping[str, tuple[str, ...]]) -> State:
    """Undo `_rename`."""
    return {our: torch.cat([theirs[n] for n in pieces]).float() for our, pieces in names.items()}


def plain_names(theirs: Mapping[str, Tensor]) -> State:
    """Bring the dialects in which BERT's weights were written over the years to one, that of `BertForPreTraining`.

    A `BertModel` alone has no prefix `bert.`; data-parallel training added `module.`; the oldest files call the
    weight and bias of a layer norm gamma and beta; the decoder's bias has two names. The list of positions 0, 1, …,
    which older files hold, is left out.
    """
    plain: State = {}
    for name, tensor in theirs.items():
        name = name.removeprefix("module.")
        name = re.sub(r"\bLayerNorm\.gamma$", "LayerNorm.weight", name)
        name = re.sub(r"\bLayerNorm\.beta$", "LayerNorm.bias", name)
        if name.split(".")[0] in ("embeddings", "encoder", "pooler"):
            name = f"bert.{name}"
        plain[name] = tensor
    plain.pop("bert.embeddings.position_ids", None)
    if SECOND_DECODER_BIAS in plain:
        plain[DECODER_BIAS] = plain.pop(SECOND_DECODER_BIAS)
    return plain


def is_tied(theirs: Mapping[str, Tensor]) -> bool:
    """Tell whether some weights hold no decoder matrix but the word embeddings, under one name or under two."""
    return DECODER not in theirs or (WORDS in theirs and torch.equal(theirs[DECODER], theirs[WORDS]))


# --- our states ↔ theirs --------------------------------------------------------------------------------------


def to_hf_state(model: BertForPreTraining) -> State:
    """Weights under the names of `transformers.BertForPreTraining`; a tied decoder matrix is not repeated."""
    theirs = _stored(_rename(model.state_dict(), _all_names(model.config)))
    if not model.config.tie_word_embeddings:  # `transformers` ties both or neither
        theirs[SECOND_DECODER_BIAS] = theirs[DECODER_BIAS].clone()
    return theirs


def encoder_to_hf(encoder: Encoder, config: ModelConfig) -> State:
    """Weights of an encoder under the names they have in every BERT of `transformers`: `bert.embeddings…`."""
    return _stored(_rename(encoder.state_dict(), _encoder_names(config)))


def _stored(tensors: Mapping[str, Tensor]) -> State:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def from_hf_state(theirs: Mapping[str, Tensor], config: ModelConfig) -> State:
    """Turn weights with `transformers`' names into a state for our `BertForPreTraining`, in fp32.

    Raises:
        UserError: a weight is missing, has another shape than the configuration says, or is no floating-point tensor.
    """
    plain = plain_names(theirs)
    if config.tie_word_embeddings and not is_tied(plain):
        raise UserError(f"the weights hold {DECODER!r}, unlike the word embeddings: set tie_word_embeddings to false")
    _check(plain, hf_shapes(config), "BertForPreTraining")
    return _rename_back(plain, _all_names(config))


def encoder_from_hf(theirs: Mapping[str, Tensor], config: ModelConfig) -> State:
    """Turn weights with `transformers`' names into a state for our `Encoder`, in fp32; heads are left out.

    Raises:
        UserError: as `from_hf_state`.
    """
    plain, names = plain_names(theirs), _encoder_names(config)
    encoder_only = {piece for pieces in names.values() for piece in pieces}
    _check(plain, {n: shape for n, shape in hf_shapes(config).items() if n in encoder_only}, "BERT's encoder")
    return _rename_back(plain, names)


def hf_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights that a `BertForPreTraining` of this size needs; a tied matrix stands once."""
    with torch.device("meta"):  # shapes without numbers
        empty = BertForPreTraining(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in _rename(empty, _all_names(config)).items()}


def _check(theirs: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    if missing := [name for name in shapes if name not in theirs]:
        raise UserError(f"the weights have no {listed(missing)}: they are not those of a {what} of this size")
    for name, shape in shapes.items():
        if tuple(theirs[name].shape) != shape:
            raise UserError(f"weight {name!r} has the shape {tuple(theirs[name].shape)}, config.json asks for {shape}")
        if not theirs[name].is_floating_point():
            raise UserError(f"weight {name!r} holds {theirs[name].dtype}: give weights that are not quantized")


def listed(names: Iterable[str], most: int = 3) -> str:
    """Quote the first names, and count the others.

    >>> listed(["a", "b", "c", "d", "e"])
    "'a', 'b', 'c' and 2 more"
    """
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more


# --- files ----------------------------------------------------------------------------------------------------


def read_weights(folder: Path) -> State:
    """Read the weights of a folder: safetensors before pickles, one file or several with an index.

    Raises:
        UserError: there are none, or a file is missing or damaged, or holds more than tensors.
    """
    for name in WEIGHT_FILES:
        path = folder / name
        if path.is_file():
            read = read_pickle if ".bin" in path.suffixes else read_tensors
            return _read_sharded(path, read) if path.suffix == ".json" else read(path)
    raise UserError(
        f"{folder} holds no weights: it needs model.safetensors or pytorch_model.bin, or several files with their "
        "index (model.safetensors.index.json)"
    )


def _read_sharded(index: Path, read: Callable[[Path], State]) -> State:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(p, str) and p == Path(p).name for p in places.values()):
        raise UserError(f"{index} is damaged, it does not say which file holds which weight; put a good copy there")
    shards = sorted(set(places.values()))
    if missing := [shard for shard in shards if not (index.parent / shard).is_file()]:
        raise UserError(
            f"{len(missing)} of the {len(shards)} weight files that {index} names are missing: {listed(missing)}"
        )
    found: State = {}
    for shard in shards:
        found |= read(index.parent / shard)
    if missing := [name for name in places if name not in found]:
        raise UserError(f"{index} names {listed(missing)}, which its files do not hold; put good copies there")
    return found


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


def read_pickle(path: Path) -> State:
    """Read tensors from a file of `torch.save` onto the CPU; a pickle that asks for anything else is not run.

    Raises:
        UserError: it is damaged, or holds more than tensors by name.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} is a damaged pickle or one that holds more than tensors, and nothing of it was run: "
            "get the checkpoint as safetensors"
        ) from None
    except Exception as error:  # the library raises whatever the damage leads to
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{path} is damaged ({type(error).__name__}: {reason}); put a good copy in its place") from None
    if not isinstance(found, dict) or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in found.items()):
        raise UserError(f"{path} does not hold tensors by name; get the checkpoint as safetensors")
    return dict(found)


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

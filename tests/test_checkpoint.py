"""Saving and loading: `transformers` reads what we write, we read what it writes, a crash costs no checkpoint."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import documents, files
from safetensors.torch import load_file, save_file

import mlmkit
from mlmkit import checkpoint as ckpt
from mlmkit import weights
from mlmkit.config import ModelConfig, TrainConfig
from mlmkit.errors import UserError
from mlmkit.model import BertForPreTraining
from mlmkit.optimization import make_optimizer, train_step
from mlmkit.tokenizer import Tokenizer, train_wordpiece

SIZES = ModelConfig(
    vocab_size=90,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=20,
    initializer_range=0.2,
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_wordpiece([sentence for document in documents(20) for sentence in document], 90)


def make_model(seed: int = 0) -> BertForPreTraining:
    """Weights far from their start, so that a bias or a norm put in the wrong place shows."""
    torch.manual_seed(seed)
    model = BertForPreTraining(SIZES)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


def make_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, SIZES.vocab_size, (3, 12), generator=rng)
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    labels = torch.where((torch.rand(ids.shape, generator=rng) < 0.3) & (mask == 1), ids, -100)
    labels[0, 1] = ids[0, 1]
    segments = (torch.arange(12) >= 6).long().expand_as(ids).contiguous()
    relation = torch.tensor([0, 1, 0])
    return {
        "input_ids": ids,
        "token_type_ids": segments,
        "attention_mask": mask,
        "labels": labels,
        "next_sentence_label": relation,
    }


def outputs(model: BertForPreTraining) -> tuple[torch.Tensor, torch.Tensor]:
    batch = make_batch()
    with torch.no_grad():
        output = model(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
    return output.mlm_logits, output.nsp_logits


def trained(steps: int, seed: int = 0) -> tuple[BertForPreTraining, torch.optim.Optimizer]:
    model = make_model(seed)
    optimizer = make_optimizer(model, TrainConfig())
    for step in range(steps):
        train_step(model, make_batch(step), optimizer, lr=0.01)
    return model, optimizer


@cache
def reference(steps: int) -> tuple[BertForPreTraining, torch.optim.Optimizer]:
    """A trained model that no test changes."""
    return trained(steps)


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    ckpt.save(make_model(), tokenizer, tmp_path / "saved")
    return tmp_path / "saved"


# The folder that `transformers` opens


def test_transformers_opens_our_folder_and_computes_the_same(folder: Path, tokenizer: Tokenizer):
    from transformers import AutoModelForPreTraining, AutoTokenizer

    theirs, info = AutoModelForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"], "transformers filled these with random numbers"
    assert not info["unexpected_keys"]
    batch = make_batch()
    with torch.no_grad():
        output = theirs.eval()(**{k: batch[k] for k in ("input_ids", "token_type_ids", "attention_mask")})
    mlm, nsp = outputs(make_model())
    real = batch["attention_mask"].bool()
    # two orders of adding fp32 numbers of size 1
    torch.testing.assert_close(output.prediction_logits[real], mlm[real], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.seq_relationship_logits, nsp, atol=1e-5, rtol=1e-5)

    their_tokenizer = AutoTokenizer.from_pretrained(folder)
    a, b = "The green kettle forgets no bishop.", "Twice [MASK] ladders!"
    encoded = their_tokenizer(a, b)
    assert (encoded["input_ids"], encoded["token_type_ids"]) == tokenizer.pair_ids(a, b)
    assert their_tokenizer.mask_token_id == tokenizer.mask_id


def test_we_open_what_transformers_saved(tmp_path: Path, tokenizer: Tokenizer):
    from transformers import BertConfig
    from transformers import BertForPreTraining as Theirs

    torch.manual_seed(3)
    theirs = Theirs(BertConfig(**asdict(SIZES))).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    model, _ = mlmkit.load(tmp_path)
    batch = make_batch()
    with torch.no_grad():
        output = theirs(**{k: batch[k] for k in ("input_ids", "token_type_ids", "attention_mask")})
    mlm, nsp = outputs(model)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(mlm[real], output.prediction_logits[real], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(nsp, output.seq_relationship_logits, atol=1e-5, rtol=1e-5)


def test_load_gives_back_what_was_saved_bit_for_bit_and_in_evaluation_mode(folder: Path, tokenizer: Tokenizer):
    model, again = mlmkit.load(folder)
    assert not model.training
    assert model.config == SIZES
    for name, weight in make_model().state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert model.mlm.decoder.weight is model.encoder.embeddings.token.weight, "the decoder is no longer tied"
    assert again.backend.to_str() == tokenizer.backend.to_str()


def test_the_tied_matrix_is_stored_once(folder: Path):
    stored = load_file(folder / "model.safetensors")
    assert not any(name.startswith("cls.predictions.decoder") for name in stored)
    assert sum(t.numel() for t in stored.values()) == make_model().num_parameters()


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without_a_weight(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if k != "cls.predictions.bias"}, path)


def with_odd_shapes(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file(load_file(path) | {"bert.encoder.layer.0.attention.self.key.weight": torch.zeros(3, 5)}, path)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, r"saved is not a folder; give the folder that"),
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json does not exist; is .* a folder written by"),
    "half a config": (lambda f: (f / "config.json").write_text('{"model_ty'), r"config\.json is damaged.*not JSON"),
    "binary config": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), r"config\.json is damaged"),
    "a list": (lambda f: (f / "config.json").write_text("[1]"), r"config\.json is damaged, it holds no JSON object"),
    "another model": (
        lambda f: edit_config(f, model_type="gpt2"),
        r"model_type='gpt2'; mlmkit reads model_type='bert'",
    ),
    "another activation": (
        lambda f: edit_config(f, hidden_act="silu"),
        r"hidden_act expects one of gelu, .*got 'silu'",
    ),
    "a word for a size": (
        lambda f: edit_config(f, hidden_size="big"),
        r"config\.json does not describe a model: model\.hidden_size expects a whole number, got 'big'",
    ),
    "heads do not divide": (lambda f: edit_config(f, num_attention_heads=3), r"config\.json .*must be divisible"),
    "more layers": (
        lambda f: edit_config(f, num_hidden_layers=3),
        r"saved: the weights have no 'bert\.encoder\.layer\.2",
    ),
    "another size": (
        lambda f: edit_config(f, hidden_size=32),
        r"saved: weight '.*embeddings\.weight' has the shape .*config\.json asks for",
    ),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        r"saved holds no weights: it needs model\.safetensors",
    ),
    "half the weights": (
        lambda f: os.truncate(f / "model.safetensors", 5000),
        r"model\.safetensors is damaged .*put a good copy in its place",
    ),
    "empty weights": (lambda f: os.truncate(f / "model.safetensors", 0), r"model\.safetensors is damaged"),
    "a weight is missing": (without_a_weight, r"saved: the weights have no 'cls\.predictions\.bias'"),
    "odd shapes": (with_odd_shapes, r"key\.weight' has the shape \(3, 5\), config\.json asks for \(16, 16\)"),
    "no tokenizer": (
        lambda f: [(f / name).unlink() for name in ("tokenizer.json", "vocab.txt")],
        r"tokenizer\.json does not exist",
    ),
    "half a tokenizer": (lambda f: (f / "tokenizer.json").write_text('{"ver'), r"tokenizer\.json is not a tokenizer"),
    "the run goes on": (
        lambda f: ((f / "run.json").write_text("{}"), (f / "model.safetensors").unlink()),
        r"has not finished; go on with: mlmkit pretrain --resume",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_in_one_line_that_names_the_file(folder: Path, damage: str):
    spoil, message = DAMAGES[damage]
    spoil(folder)
    with pytest.raises(UserError, match=message) as caught:
        mlmkit.load(folder)
    assert "\n" not in str(caught.value)


def test_what_config_json_leaves_out_is_as_in_bert_base(tmp_path: Path):
    from transformers import BertConfig

    (tmp_path / "config.json").write_text("{}")
    read = asdict(ckpt.read_model_config(tmp_path / "config.json"))
    base = BertConfig().to_dict()
    assert read == {name: base[name] for name in read}


# Checkpoints


class Crash(BaseException):
    """Stands for a kill: nothing of ours catches it."""


def resave(folder: Path, step: int, keep: int = 2) -> Path:
    model, optimizer = reference(step)
    return ckpt.save_checkpoint(folder, step, model, optimizer, {"note": f"step {step}"}, keep)


def assert_holds(path: Path, step: int) -> None:
    """The checkpoint gives back the weights, moments and state of this step, and training goes on the same."""
    model, optimizer = trained(0, seed=9)
    state = ckpt.load_checkpoint(path, model, optimizer)
    assert state == {"note": f"step {step}", "step": step}
    train_step(model, make_batch(step), optimizer, lr=0.01)
    for (name, weight), other in zip(model.named_parameters(), reference(step + 1)[0].parameters(), strict=True):
        assert torch.equal(weight, other), name
        assert optimizer.state[weight]["step"] == step + 1


def test_a_checkpoint_gives_back_weights_moments_and_state_bit_for_bit(tmp_path: Path):
    assert_holds(resave(tmp_path / "checkpoints", 3), 3)


def test_a_checkpoint_before_the_first_update_has_no_moments(tmp_path: Path):
    assert_holds(resave(tmp_path, 0), 0)


def test_the_newest_are_kept_and_listed_oldest_first(tmp_path: Path):
    for step in (1, 2, 3):
        resave(tmp_path, step)
    assert [path.name for path in ckpt.checkpoints(tmp_path)] == ["step-0000002", "step-0000003"]
    assert files(tmp_path) == {"step-0000002", "step-0000003"}
    (tmp_path / "step-0000009").write_text("not a folder")
    (tmp_path / "step-12").mkdir()
    (tmp_path / ".tmp-4-1").mkdir()
    (tmp_path / "step-12345678").mkdir()
    assert [path.name for path in ckpt.checkpoints(tmp_path)] == ["step-0000002", "step-0000003", "step-12345678"]
    assert ckpt.checkpoints(tmp_path / "nowhere") == []


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path):
    (resave(tmp_path, 2) / "old").touch()
    assert_holds(resave(tmp_path, 2), 2)
    assert files(tmp_path) == {"step-0000002"}
    assert "old" not in files(tmp_path / "step-0000002")


class Operations:
    """Counts what touches the disk, and crashes at the nth time, with a part of the work done."""

    def __init__(self, patch: pytest.MonkeyPatch, crash_at: int | None = None) -> None:
        self.names: list[str] = []
        self.crash_at = crash_at
        for owner, name in [
            (os, "replace"),
            (weights, "save_file"),
            (weights, "_flush"),
            (Path, "mkdir"),
            (Path, "write_text"),
            (shutil, "rmtree"),
        ]:
            patch.setattr(owner, name, self.watched(name, getattr(owner, name)))

    def watched(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*args: Any, **options: Any) -> Any:
            self.names.append(name)
            if len(self.names) - 1 != self.crash_at:
                return original(*args, **options)
            if name == "rmtree":
                next(Path(args[0]).iterdir()).unlink()
            if name in ("save_file", "write_text"):
                Path(args[0] if name == "write_text" else args[1]).write_bytes(b"{")
            raise Crash

        return operation


@pytest.mark.parametrize(("before", "step"), [((1, 2), 3), ((2,), 2), ((1, 2), 2)])
def test_a_crash_at_any_moment_of_saving_leaves_whole_checkpoints_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: tuple[int, ...], step: int
):
    """Every operation on the disk is tried in turn; also where the same step is written again."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # slow, and of no consequence while the machine stays on
    for old in before:
        resave(tmp_path / "template", old)
    shutil.copytree(tmp_path / "template", tmp_path / "count")
    with pytest.MonkeyPatch.context() as patch:
        names = Operations(patch).names
        resave(tmp_path / "count", step)
    # two files of tensors and one of JSON, each flushed and renamed; then the folder itself
    assert names[:10] == "mkdir mkdir save_file _flush replace save_file _flush replace write_text _flush".split()
    for moment, name in enumerate(names):
        folder = tmp_path / f"{moment}"
        shutil.copytree(tmp_path / "template", folder)
        with pytest.MonkeyPatch.context() as patch:
            Operations(patch, moment)
            with pytest.raises(Crash):
                resave(folder, step)
        where = f"crash in operation {moment}, {name}"
        found = ckpt.checkpoints(folder)
        between_the_renames = before == (2,) and moment == 12  # the only checkpoint stands aside for a moment
        assert found or between_the_renames, where
        for path in found:
            assert files(path) == {"model.safetensors", "optimizer.safetensors", "state.json"}, where
            assert_holds(path, int(path.name[5:]))
        resave(folder, 4)
        assert not [scrap for scrap in files(folder) if scrap.startswith(".")], f"{where}: scraps stay"


def test_a_damaged_checkpoint_is_refused(tmp_path: Path):
    path = resave(tmp_path, 1)
    tensors = load_file(path / "optimizer.safetensors")
    save_file(tensors | {"encoder.nothing.weight/exp_avg": torch.zeros(1)}, path / "optimizer.safetensors")
    with pytest.raises(UserError, match=r"optimizer\.safetensors holds 'encoder\.nothing\.weight/exp_avg'"):
        ckpt.load_checkpoint(path, *trained(0))
    (path / "optimizer.safetensors").unlink()
    with pytest.raises(UserError, match=r"optimizer\.safetensors does not exist"):
        ckpt.load_checkpoint(path, *trained(0))

"""A folder that can be given away: model, tokenizer, curve and model card."""

from __future__ import annotations

from pathlib import Path

from mlmkit.checkpoint import save
from mlmkit.errors import UserError
from mlmkit.exchange.card import CURVE, model_card
from mlmkit.history import History
from mlmkit.model import BertForPreTraining
from mlmkit.plots import save_figure
from mlmkit.tokenizer import Tokenizer


def export_hf(
    model: BertForPreTraining,
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    history: History | None = None,
    license: str | None = None,
    language: str | None = "en",
    name: str | None = None,
) -> Path:
    """Write a folder that `transformers` opens and that tells what is in it.

    `AutoModelForPreTraining`, `AutoModelForMaskedLM`, `AutoModel`, `AutoTokenizer` and `pipeline("fill-mask")` open
    it, and so does `mlmkit.load`. README.md is a model card as the Hugging Face hub reads it.

    Args:
        model: with its tokenizer.
        tokenizer: of the model.
        folder: must be new or empty.
        history: record of the run that made the model; gives the card its data, recipe, results and curve.
        license: of the model, under its short name: "mit", "apache-2.0", "cc-by-4.0"; None: the card says that there
            is none.
        language: of the text, as an ISO 639 code; None for an invented one.
        name: of the model; default: that of the folder.

    Returns:
        The folder.

    Raises:
        UserError: the folder is not empty, model and tokenizer do not fit, or license or language is no such code.
    """
    folder = Path(folder)
    _check(folder, model, tokenizer)
    card = model_card(model, tokenizer, name or folder.resolve().name, history, license, language)
    save(model, tokenizer, folder)
    (folder / "README.md").write_text(card, encoding="utf-8")
    if history is not None and history.evaluations:
        save_figure(history.plot(), folder / CURVE)
    return folder


def _check(folder: Path, model: BertForPreTraining, tokenizer: Tokenizer) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; the export needs a folder: choose another name")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; choose a new folder for the export")
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {model.config.vocab_size}: "
            "give the tokenizer that the model was trained with"
        )

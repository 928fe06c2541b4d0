"""In and out of the Hugging Face world: any BERT checkpoint in, a folder with a model card out."""

from __future__ import annotations

from mlmkit.exchange.card import model_card
from mlmkit.exchange.exporting import export_hf
from mlmkit.exchange.hub import fetch
from mlmkit.exchange.importing import Imported, import_hf

__all__ = ["Imported", "export_hf", "fetch", "import_hf", "model_card"]

"""All looks at one model: the pictures in a folder, the numbers beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmkit.checkpoint import load
from mlmkit.errors import UserError
from mlmkit.inspection.attention import attention_habits, attention_maps
from mlmkit.inspection.embeddings import embedding_neighbors, what_enters
from mlmkit.inspection.order import probe_word_order
from mlmkit.inspection.projection import project_embeddings, word_classes
from mlmkit.inspection.reading import language_of, lay_out_text, untrained
from mlmkit.inspection.relation import probe_sentence_relation
from mlmkit.inspection.reliability import calibration
from mlmkit.model import BertForPreTraining
from mlmkit.plots import (
    plot_attention,
    plot_calibration,
    plot_entering,
    plot_habits,
    plot_heads,
    plot_neighbors,
    plot_projection,
    plot_sentence_relation,
    plot_word_order,
    save_figure,
)
from mlmkit.preparation import Data, reopen
from mlmkit.tokenizer import Tokenizer
from mlmkit.weights import write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERS = "inspection.json"
"""Name of the file with the numbers behind the pictures."""
HABIT_BATCHES = 8
"""Batches over which the habits of the heads are averaged."""
Look = tuple[str, "Figure", dict[str, Any]]
"""Name of a picture, the picture, and the numbers that it shows."""


@dataclass(frozen=True)
class Report:
    """What `inspect_run` left: name → picture, and name → numbers."""

    pictures: dict[str, Path]
    numbers: dict[str, dict[str, Any]]


def inspect_run(
    folder: str | Path, out: str | Path, text: str | None = None, b: str | None = None, pairs: int = 4000
) -> Report:
    """Look inside the model in a folder: write pictures as PNG, and `inspection.json` with their numbers.

    Of any model: the neighbors of [MASK], the embeddings in the plane, and with a text its attention and what enters
    the encoder. Of a run of `mlmkit pretrain`, whose corpus is known, also the habits of the heads, the probes and
    the calibration.

    Args:
        folder: of a run, or any folder that `load` opens.
        out: where to write; made if it is not there.
        text: whose attention is drawn; may hold [MASK].
        b: second sentence to it.
        pairs: sentence pairs for the probes.

    Raises:
        UserError: the folder holds no model, `b` comes without `text`, or a text is too long, or the
            corpus has changed since the run.
    """
    if b is not None and text is None:
        raise UserError("a second sentence needs a first one: give --text too")
    folder, out = Path(folder), Path(out)
    model, tokenizer = load(folder)
    if text is not None:
        lay_out_text(model, tokenizer, text, b)  # too long a text is refused before anything is written
    data = reopen(folder) if (folder / "run.json").is_file() else None
    looks = _at_the_model(model, tokenizer, text, b)
    out.mkdir(parents=True, exist_ok=True)
    found = _write(looks if data is None else chain(looks, _with_the_corpus(model, data, pairs)), out)
    write_json(out / NUMBERS, found.numbers)
    return found


def _write(looks: Iterable[Look], out: Path) -> Report:
    pictures, numbers = {}, {}
    for name, figure, shown in looks:
        pictures[name] = out / f"{name}.png"
        save_figure(figure, pictures[name])
        numbers[name] = shown
    return Report(pictures, numbers)


def _at_the_model(model: BertForPreTraining, tokenizer: Tokenizer, text: str | None, b: str | None) -> Iterator[Look]:
    """What can be seen of the weights alone, and of a text."""
    neighbors = embedding_neighbors(model, tokenizer)
    before = embedding_neighbors(untrained(model), tokenizer)
    shown = dict(zip(neighbors.tokens, neighbors.cosines, strict=True))
    yield "mask_neighbors", plot_neighbors(neighbors, before), {"cosines": shown, "norm": neighbors.norm}
    projection = project_embeddings(model, tokenizer)
    yield "embeddings", plot_projection(projection), {"explained": projection.explained}
    if text is not None:
        maps = attention_maps(model, tokenizer, text, b)
        numbers = {"tokens": maps.tokens, "entropy": maps.habits().entropy.tolist()}
        yield "attention_heads", plot_heads(maps), numbers
        layer, head = maps.sharpest()
        yield "attention_sharpest", plot_attention(maps, layer, head), {"layer": layer, "head": head}
        yield "entering", plot_entering(what_enters(model, tokenizer, text, b)), {"tokens": maps.tokens}


def _with_the_corpus(model: BertForPreTraining, data: Data, pairs: int) -> Iterator[Look]:
    """What needs held-out text."""
    habits = attention_habits(model, data.tokenizer, data.held_out("test", HABIT_BATCHES))
    shares = {name: share.tolist() for name, share in habits.shares.items()}
    yield "habits", plot_habits(habits), {"entropy": habits.entropy.tolist(), **shares}
    relation = probe_sentence_relation(model, data, pairs)
    yield "sentence_relation", plot_sentence_relation({"this model": relation}), asdict(relation)
    order = probe_word_order(model, data, pairs)
    yield "word_order", plot_word_order({"this model": order}), asdict(order)
    found = calibration(model, data.held_out("test"), mask_id=data.tokenizer.mask_id)
    yield "calibration", plot_calibration({"this model": found}), asdict(found)
    language = language_of(data)
    if language is not None:  # in the place of the picture without groups
        projection = project_embeddings(model, data.tokenizer, word_classes(language))
        assert projection.purity is not None
        numbers = {"explained": projection.explained, "purity": asdict(projection.purity), "chance": projection.chance}
        yield "embeddings", plot_projection(projection), numbers

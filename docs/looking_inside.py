"""Make the pictures of looking_inside.md, and print its numbers: two runs on the exact language, with and without NSP.

python docs/looking_inside.py [FOLDER OF THE RUNS]
"""

from __future__ import annotations

import sys
from pathlib import Path

from mlmkit import PRESETS, plots, pretrain
from mlmkit.config import RunConfig
from mlmkit.inspection import (
    attention_habits,
    attention_maps,
    calibration,
    embedding_neighbors,
    probe_sentence_relation,
    probe_word_order,
    project_embeddings,
    untrained,
    what_enters,
    word_classes,
)
from mlmkit.preparation import Data, prepare
from mlmkit.pretraining import Run

PICTURES = Path(__file__).with_suffix("")
NETWORK = [
    *("data.corpus=exact:market:450000", "model.num_hidden_layers=2", "model.num_attention_heads=6"),
    *("model.initializer_range=0.04", "train.batch_size=128", "train.max_steps=5400", "train.lr=4e-3"),
    *("train.warmup_steps=300", "train.eval_every=1800", "train.eval_batches=32"),
]
"""Two layers instead of the preset's three: fewer heads to look at."""
A, B = "once sells fish soon here here today first", "carries old [MASK] red proud round rose never"


def trained(config: RunConfig, folder: Path) -> tuple[Run, Data]:
    """Train a run, or open it if it is there."""
    return pretrain(config, folder, resume=True), prepare(config, folder)


def look_at_the_heads(run: Run, data: Data) -> None:
    """Attention on one pair, and what the heads do on average."""
    maps = attention_maps(run.model, run.tokenizer, A, B)
    plots.save_figure(plots.plot_heads(maps), PICTURES / "heads.png")
    plots.save_figure(plots.plot_attention(maps, *maps.sharpest()), PICTURES / "head.png")
    habits = attention_habits(run.model, run.tokenizer, data.held_out("test", 8))
    plots.save_figure(plots.plot_habits(habits), PICTURES / "habits.png")


def look_at_the_embeddings(run: Run, data: Data) -> None:
    """[MASK] among the others, what enters the encoder, and the classes of words."""
    fresh, tokenizer = untrained(run.model), run.tokenizer
    before, after = (embedding_neighbors(model, tokenizer) for model in (fresh, run.model))
    plots.save_figure(plots.plot_neighbors(after, before), PICTURES / "mask.png")
    plots.save_figure(plots.plot_entering(what_enters(run.model, tokenizer, A, B)), PICTURES / "entering.png")
    assert data.corpus.language is not None
    classes = word_classes(data.corpus.language)
    flat = project_embeddings(run.model, tokenizer, classes)
    plots.save_figure(plots.plot_projection(flat), PICTURES / "words.png")
    print(f"nearest word of the own class: {flat.purity}, fresh {project_embeddings(fresh, tokenizer, classes).purity}")
    print(f"[MASK]: nearest {after.tokens[:3]}, length {after.norm:.2f} (words {after.norms.mean():.2f})")
    print(f"[MASK]: distance to the mean {after.distance:.2f} (words {after.distances.mean():.2f})")


def compare_with_and_without_nsp(runs: dict[str, tuple[Run, Data]]) -> None:
    """What the two tasks buy, and whether the probabilities can be believed."""
    relation = {name: probe_sentence_relation(run.model, data) for name, (run, data) in runs.items()}
    plots.save_figure(plots.plot_sentence_relation(relation), PICTURES / "sentence_relation.png")
    order = {name: probe_word_order(run.model, data) for name, (run, data) in runs.items()}
    plots.save_figure(plots.plot_word_order(order), PICTURES / "word_order.png")
    for name in runs:
        found, layers = relation[name], order[name]
        print(f"{name}: [CLS] {found.cls.accuracy}, mean {found.mean.accuracy}, bag {found.bag.accuracy}")
        print(f"  fresh [CLS] {found.untrained_cls.accuracy}, ceiling {found.ceiling}")
        print(f"  word order {[str(probe.accuracy) for probe in layers.trained]}, ceiling {layers.ceiling}")
        print(f"  coins {[str(probe.accuracy) for probe in layers.control]}")


def judge_the_probabilities(run: Run, data: Data) -> None:
    """The model as it is, and with its scores tripled."""
    found = {"the model": calibration(run.model, data.held_out("test"), mask_id=run.tokenizer.mask_id)}
    tripled = run.model.mlm.register_forward_hook(lambda module, entered, scores: 3 * scores)
    found["its scores × 3"] = calibration(run.model, data.held_out("test"), mask_id=run.tokenizer.mask_id)
    tripled.remove()
    plots.save_figure(plots.plot_calibration(found), PICTURES / "calibration.png")
    print({name: f"ECE {c.ece:.3f}, by chance {c.chance:.3f}" for name, c in found.items()})


def main() -> None:
    """Train or open both runs, then make all pictures."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/looking_inside")
    PICTURES.mkdir(exist_ok=True)
    small = PRESETS["exact"].override(NETWORK)
    runs = {
        "with NSP": trained(small, folder / "with_nsp"),
        "without NSP": trained(small.override(["train.nsp_weight=0"]), folder / "without_nsp"),
    }
    look_at_the_heads(*runs["with NSP"])
    look_at_the_embeddings(*runs["with NSP"])
    judge_the_probabilities(*runs["with NSP"])
    compare_with_and_without_nsp(runs)


if __name__ == "__main__":
    main()

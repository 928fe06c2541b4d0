"""What does pre-training buy on a task, and how much of it? A learning curve over pre-training tokens.

Every kept checkpoint of a run of `mlmkit pretrain` is fine-tuned on SST-2 (sentences) or SICK (pairs), with some seeds.
Beside it: the same network from random weights, both with the better of two numbers of epochs, and TF-IDF with
logistic regression. All choices are made on the validation part; the table shows the test part.

    mlmkit pretrain --preset laptop --corpus python-docs --corpus TEXTS --set train.keep_checkpoints=99 … --out RUN
    python benchmarks/finetuning.py RUN --task sst2 --data DATA --out runs/finetuning
"""

from __future__ import annotations

import argparse
import functools
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmkit import BertForPreTraining, FinetuneConfig, Tokenizer, UserError, finetune, load_task, load_tokenizer
from mlmkit.checkpoint import checkpoints, load_weights
from mlmkit.config import RunConfig
from mlmkit.finetuning import Task, compare
from mlmkit.plots import BLUE, GREY, ORANGE, new_figure, save_figure
from mlmkit.weights import read_json, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS: dict[str, dict[str, str]] = {
    "sst2": {"text": "sentence", "label": "label"},
    "sick": {"text": "sentence_A", "text_pair": "sentence_B", "label": "entailment_judgment"},
}


def main() -> None:
    """Measure what is missing, print the table, draw the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--task", choices=sorted(COLUMNS), default="sst2")
    parser.add_argument("--data", type=Path, required=True, help="folder with sst2/ and sick/")
    parser.add_argument("--out", type=Path, default=Path("runs/finetuning"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, nargs="+", default=[4, 8], help="to try, for both networks")
    parser.add_argument(
        "--steps", type=int, nargs="*", help="checkpoints to look at; default: all, the last one always"
    )
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="FIELD=VALUE")
    options = parser.parse_args()
    folder = options.data / options.task
    task = load_task(
        folder / "train.tsv", validation=folder / "dev.tsv", test=folder / "test.tsv", **COLUMNS[options.task]
    )
    print(task, flush=True)
    config = FinetuneConfig().override(options.settings)
    options.out.mkdir(parents=True, exist_ok=True)
    saved = checkpoints(options.run / "checkpoints")
    if not saved:
        raise UserError(f"{options.run} has no checkpoints")
    *before, last = saved
    points = []
    for checkpoint in before:
        if options.steps is None or step_of(checkpoint) in options.steps:
            points.append(measured(options.run, checkpoint, task, config, options))
            print(f"{points[-1]['tokens'] / 1e6:6.1f} M tokens  {points[-1]['accuracy']:.1%}", flush=True)
    record = options.out / f"{options.task}-last-{step_of(last)}"
    if not (record / "comparison.json").is_file():
        told = functools.partial(print, flush=True)
        model = opened(options.run, last)
        found = compare(model, task, config, seeds=options.seeds, out_dir=record, epochs=options.epochs, report=told)
        (record / "table.txt").write_text(f"{found}\n", encoding="utf-8")
    print((record / "table.txt").read_text(), flush=True)
    save_figure(curve(points, read_json(last / "state.json")["tokens"], record), options.out / f"{options.task}.png")


def step_of(checkpoint: Path) -> int:
    """Number of updates of a checkpoint folder."""
    return int(checkpoint.name.removeprefix("step-"))


def opened(run: Path, checkpoint: Path) -> tuple[BertForPreTraining, Tokenizer]:
    """The model of a run as it was at a checkpoint."""
    config, tokenizer = RunConfig.from_dict(read_json(run / "run.json")), load_tokenizer(run)
    model = BertForPreTraining(replace(config.model, vocab_size=tokenizer.vocab_size))
    load_weights(model, checkpoint / "model.safetensors")
    return model.eval(), tokenizer


def measured(
    run: Path, checkpoint: Path, task: Task, config: FinetuneConfig, options: argparse.Namespace
) -> dict[str, Any]:
    """Fine-tune one checkpoint, or read what was measured."""
    path = options.out / f"{options.task}-{step_of(checkpoint)}.json"
    if not path.is_file():
        result = finetune(opened(run, checkpoint), task, config, seeds=options.seeds)
        tokens, values = read_json(checkpoint / "state.json")["tokens"], result.values().tolist()
        write_json(path, {"tokens": tokens, "accuracy": result.interval().mean, "seeds": values})
    return read_json(path)


def curve(points: list[dict[str, Any]], tokens: int, record: Path) -> Figure:
    """Test accuracy against pre-training tokens, between random weights and counted words."""
    found = read_json(record / "comparison.json")
    accuracy = {name: found[name]["summary"]["test"]["accuracy"]["mean"] for name in ("pretrained", "scratch")}
    figure, (axes,) = new_figure(width=7.0, height=4.0)
    for point in points:
        axes.plot([point["tokens"] / 1e6] * len(point["seeds"]), point["seeds"], ".", color=BLUE, alpha=0.4)
    last = [seed["test"]["accuracy"] for seed in found["pretrained"]["seeds"]]
    axes.plot([tokens / 1e6] * len(last), last, ".", color=BLUE, alpha=0.4)
    along = [*((p["tokens"] / 1e6, p["accuracy"]) for p in points), (tokens / 1e6, accuracy["pretrained"])]
    axes.plot(*zip(*along, strict=True), color=BLUE, marker="o", label="pre-trained, mean of the seeds")
    axes.axhline(accuracy["scratch"], color=ORANGE, linestyle="--", label="same network, random weights")
    counted = max(found["baselines"], key=lambda baseline: baseline["validation"]["accuracy"])
    axes.axhline(counted["test"]["accuracy"], color=GREY, linestyle="-.", label=counted["name"])
    axes.set(xscale="log", xlabel="pre-training tokens (millions)", ylabel="test accuracy")
    axes.set_xticks([x for x, _ in along], labels=[f"{x:.1f}" for x, _ in along], minor=False)
    axes.set_xticks([], minor=True)
    axes.legend(fontsize=8)
    return figure


if __name__ == "__main__":
    main()

"""Does a BERT that goes on with your texts beat one that begins with them?

Three models on the held-out part of some texts, all with the vocabulary of the first, so that their losses are in the
same unit: a BERT trained on other text (`python-docs`), the same one after some updates on these texts, and a fresh one
of the same size after as many updates on these texts.

    python benchmarks/continued.py TEXTS --out runs/continued --steps 2000 --seeds 3
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

from mlmkit import PRESETS, RunConfig, Tokenizer, evaluate, import_hf, prepare, pretrain
from mlmkit.preparation import adopt


def main() -> None:
    """Train what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/continued"))
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="SECTION.FIELD=VALUE")
    options = parser.parse_args()
    preset = PRESETS[options.preset].override(options.settings)
    base = pretrain(preset, options.out / "base", resume=True)
    changes = [
        f"data.corpus={options.texts.resolve()}",
        f"train.max_steps={options.steps}",
        f"train.warmup_steps={options.steps // 10}",
        f"train.eval_every={options.steps}",
    ]
    on_texts = preset.override(changes)
    losses: dict[str, list[float]] = {"continued": [], "fresh": []}
    for seed in range(options.seeds):
        seeded = on_texts.override([f"train.seed={seed}"])
        losses["fresh"].append(test_loss(seeded, options.out / f"fresh-{seed}", base.tokenizer))
        going_on = seeded.override([f"start.checkpoint={base.folder.resolve()}"])
        losses["continued"].append(test_loss(going_on, options.out / f"continued-{seed}", base.tokenizer))
    imported = loss_of(on_texts.override([f"start.checkpoint={base.folder.resolve()}"]), options.out / "imported")
    print(f"\nheld-out MLM loss on {options.texts.name}, nats a token, {options.steps} updates, {options.seeds} seeds")
    print(f"  imported model, as it is          {imported:.3f}")
    for name, found in losses.items():
        spread = f" ± {stdev(found):.3f}" if len(found) > 1 else ""
        print(f"  {name:<32}  {mean(found):.3f}{spread}")


def test_loss(config: RunConfig, folder: Path, tokenizer: Tokenizer) -> float:
    """Train, or open what was trained, and measure on the test part; a vocabulary in the folder is used as it is."""
    tokenizer.save(folder)
    run = pretrain(config, folder, resume=True)
    data = prepare(adopt(config), folder)
    return evaluate(run.model, data.held_out("test")).mlm_loss


def loss_of(config: RunConfig, folder: Path) -> float:
    """Measure a checkpoint on the test part without training."""
    folder.mkdir(parents=True, exist_ok=True)
    data = prepare(adopt(config), folder)
    return evaluate(import_hf(config.start.checkpoint or "").model, data.held_out("test")).mlm_loss


if __name__ == "__main__":
    main()

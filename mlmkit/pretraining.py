"""One loop, one update per step: from a configuration to a trained, evaluated model that survives a kill."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from mlmkit import checkpoint as ckpt
from mlmkit.batches import Batch, fingerprint, prefetch, to_device
from mlmkit.config import RunConfig, validate
from mlmkit.corpus import Corpus
from mlmkit.errors import UserError
from mlmkit.evaluation import evaluate
from mlmkit.history import Evaluation, History, describe_hardware, describe_versions
from mlmkit.model import BertForPreTraining
from mlmkit.optimization import keep_freed_memory, learning_rate, make_optimizer, train_step
from mlmkit.plots import save_figure
from mlmkit.preparation import Data, build_model, draw_model, prepare
from mlmkit.run_folder import claim, give_back
from mlmkit.tokenizer import Tokenizer
from mlmkit.weights import to_hf_state, write_tensors

WINDOW = 10
"""Updates over which the recorded training loss is averaged."""


class TrainingDiverged(RuntimeError):
    """The loss became NaN or infinite."""


class Interrupted(Exception):
    """The user asked the run to stop; a checkpoint was written."""


@dataclass(frozen=True)
class Run:
    """A trained model and how it came about."""

    model: BertForPreTraining
    tokenizer: Tokenizer
    history: History
    folder: Path


def pretrain(
    config: RunConfig,
    out_dir: str | Path,
    *,
    resume: bool = False,
    corpus: Corpus | None = None,
    cache_dir: Path | None = None,
    progress: bool = True,
    report: Callable[[Evaluation], None] | None = None,
) -> Run:
    """Pre-train a BERT and leave in `out_dir` everything about it.

    `out_dir` then opens with `mlmkit.load` and `transformers.AutoModelForPreTraining`, and holds `metrics.json`,
    `curve.png`, `run.json` (the configuration) and `checkpoints/`. A finished run that is resumed is opened, not
    trained again.

    Args:
        config: a whole run.
        out_dir: folder of the run; must not hold another run unless `resume`.
        resume: go on from the newest checkpoint, with the same configuration; start if there is no run.
        corpus: use this one instead of loading `config.data.corpus`.
        cache_dir: for corpora and token tables; default `cache_root()`.
        progress: show a bar on a terminal.
        report: called with every evaluation.

    Raises:
        UserError: the configuration, the corpus or the folder does not allow the run.
        TrainingDiverged: a loss is no longer finite.
        Interrupted: Ctrl-C or SIGTERM came; a checkpoint was written.
    """
    folder = Path(out_dir)
    validate(config)
    before = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    config = claim(folder, config, resume)
    torch.set_num_threads(config.train.threads or torch.get_num_threads())
    keep_freed_memory()
    finished = folder / "metrics.json"
    if finished.is_file() and History.load(folder).status in ("finished", "stopped early"):
        return Run(*ckpt.load(folder), History.load(folder), folder)
    ckpt.remove_scraps(folder)
    ckpt.remove_scraps(folder / "checkpoints")
    try:
        data = prepare(config, folder, cache_dir, corpus)
        with torch.random.fork_rng(), _deferred_signals() as stop:
            trainer = _Trainer(config, folder, data, stop, progress, report)
            trainer.run()
    except UserError:
        give_back(folder, before)
        raise
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; go on with: mlmkit pretrain --resume {folder}") from None
    return Run(trainer.model.eval(), data.tokenizer, trainer.history, folder)


@contextmanager
def _deferred_signals() -> Iterator[threading.Event]:
    """Turn Ctrl-C and SIGTERM into a flag, so that a step is never cut in half."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handler(number: int, _: object) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


@dataclass
class _Trainer:
    """The state of a running run."""

    config: RunConfig
    folder: Path
    data: Data
    stop: threading.Event
    progress: bool
    report: Callable[[Evaluation], None] | None
    step: int = 0
    epoch: int = 0
    epoch_step: int = 0
    tokens: int = 0
    seconds_before: float = 0.0
    window: list[list[float]] = field(default_factory=list)
    pending: list[tuple[int, str, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.train = self.config.train
        self.device = torch.device(self.train.device)
        first = draw_model if ckpt.checkpoints(self.folder / "checkpoints") else build_model
        self.model = first(self.config, self.data).to(self.device)
        self.optimizer = make_optimizer(self.model, self.train)
        self.history = History(
            config=self.config.to_dict(),
            corpus={
                "name": self.data.corpus.name,
                "fingerprint": self.data.corpus.fingerprint,
                "report": asdict(self.data.corpus.report),
            },
            baselines=self.data.baselines("validation"),
            hardware=describe_hardware(self.device, self.train.precision),
            versions=describe_versions(),
        )
        self._resume()
        self.started = time.perf_counter()

    def _resume(self) -> None:
        found = ckpt.checkpoints(self.folder / "checkpoints")
        if not found:
            return
        try:
            state = ckpt.load_checkpoint(found[-1], self.model, self.optimizer)
        except UserError as error:
            raise UserError(f"{error}; or delete {found[-1]} to go on from the checkpoint before") from None
        self.step, self.epoch, self.epoch_step = state["step"], state["epoch"], state["epoch_step"]
        self.tokens, self.seconds_before, self.window = state["tokens"], state["seconds"], state["window"]
        if state["corpus_fingerprint"] != self.data.corpus.fingerprint:
            raise UserError(
                f"the corpus has changed since the run began (fingerprint {state['corpus_fingerprint']}, now "
                f"{self.data.corpus.fingerprint}); restore it or start a new run"
            )
        self.history.evaluations = [Evaluation(**e) for e in state["evaluations"]]
        self.history.training = state["training"]

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    def run(self) -> None:
        """Train to the end, then write the model, the record and the curve."""
        bar = tqdm(
            total=self.train.max_steps,
            initial=self.step,
            unit="step",
            disable=None if self.progress else True,
        )
        batches = self.data.batches("train", self.train.seed).forever(self.epoch, self.epoch_step)
        if self.device.type != "cpu":  # on a CPU the thread would only take time from the model
            batches = prefetch(batches)
        first = self.step
        try:
            while True:
                if self.step > first and self._due(self.train.checkpoint_every or self.train.eval_every):
                    self._checkpoint()
                if self._due(self.train.eval_every) and not self._evaluated():
                    self._evaluate()
                    bar.set_postfix_str(f"held-out MLM {self.history.last.mlm_loss:.3f}")
                if self.step == self.train.max_steps or self._out_of_patience():
                    break
                if self.stop.is_set():
                    self._interrupt()
                self._update(*next(batches))
                bar.update()
        finally:
            batches.close()  # ends the thread
            bar.close()
        self._finish()

    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.train.max_steps

    def _evaluated(self) -> bool:
        return bool(self.history.evaluations) and self.history.last.step == self.step

    def _update(self, epoch: int, epoch_step: int, batch: Batch) -> None:
        torch.manual_seed(_step_seed(self.train.seed, self.step))
        self.model.train()
        losses, norm = train_step(
            self.model,
            to_device(batch, self.device),
            self.optimizer,
            lr=learning_rate(self.step, self.train),
            grad_clip=self.train.grad_clip,
            nsp_weight=self.train.nsp_weight,
            precision=self.train.precision,
        )
        self.pending.append((self.step, fingerprint(batch), torch.stack([losses.mlm, losses.nsp, norm])))
        self.step += 1
        self.epoch, self.epoch_step = epoch, epoch_step + 1
        self.tokens += int(batch["attention_mask"].sum())
        if self.device.type == "cpu" or len(self.pending) == WINDOW:
            self._read_losses()

    def _read_losses(self) -> None:
        """Fetch the losses of the last updates from the device, check them, and record their means."""
        for step, batch, values in self.pending:
            row = values.tolist()
            if not all(math.isfinite(value) for value in row):
                raise self._diverged(
                    f"the loss is not finite at step {step} (MLM {row[0]:.4g}, NSP {row[1]:.4g}, gradient norm "
                    f"{row[2]:.4g}; batch {batch})"
                )
            self.window.append(row)
            if len(self.window) == WINDOW:
                mlm, nsp, norm = np.mean(self.window, axis=0).tolist()
                lr = learning_rate(step, self.train)
                self.history.training.append({"step": step + 1, "mlm": mlm, "nsp": nsp, "grad_norm": norm, "lr": lr})
                self.window = []
        self.pending = []

    def _diverged(self, what: str) -> TrainingDiverged:
        return TrainingDiverged(
            f"{what}: start a new run and lower train.lr (now {self.train.lr:g}), lengthen train.warmup_steps, "
            "set train.grad_clip=1.0, or use train.precision=fp32; "
            f"the last checkpoint in {self.folder} is from before"
        )

    def _checkpoint(self) -> None:
        self._read_losses()
        if not all(bool(weight.isfinite().all()) for weight in self.model.parameters()):
            raise self._diverged(f"the weights are not finite after step {self.step - 1}")
        state = {
            "epoch": self.epoch,
            "epoch_step": self.epoch_step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "window": self.window,
            "corpus_fingerprint": self.data.corpus.fingerprint,
            "evaluations": [asdict(e) for e in self.history.evaluations],
            "training": self.history.training,
        }
        folder = self.folder / "checkpoints"
        ckpt.save_checkpoint(folder, self.step, self.model, self.optimizer, state, self.train.keep_checkpoints)

    def _evaluate(self) -> None:
        self._read_losses()
        metrics = evaluate(self.model, self.data.held_out("validation", self.train.eval_batches))
        found = metrics.to_dict()
        names = ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")
        evaluation = Evaluation(self.step, self.tokens, round(self.seconds, 1), **{n: found[n] for n in names})
        self.history.evaluations.append(evaluation)
        if self.train.patience is not None and self.history.best is evaluation:
            write_tensors(self.folder / "best.safetensors", to_hf_state(self.model))
        self.history.save(self.folder / "metrics.json")
        if self.report is not None:
            self.report(evaluation)

    def _out_of_patience(self) -> bool:
        if self.train.patience is None or not self._evaluated():
            return False
        since = self.history.evaluations[self.history.evaluations.index(self.history.best) + 1 :]
        return len(since) >= self.train.patience

    def _interrupt(self) -> None:
        self._checkpoint()
        self.history.status = "interrupted"
        self.history.save(self.folder / "metrics.json")
        raise Interrupted(
            f"stopped at step {self.step} of {self.train.max_steps}; go on with: mlmkit pretrain --resume {self.folder}"
        )

    def _finish(self) -> None:
        """Write the folder that `load` and `transformers` open; the last thing written says that it is complete."""
        if self.train.patience is not None:
            ckpt.load_weights(self.model, self.folder / "best.safetensors")
        ckpt.save(self.model, self.data.tokenizer, self.folder)
        save_figure(self.history.plot(), self.folder / "curve.png")
        self.history.status = "finished" if self.step == self.train.max_steps else "stopped early"
        self.history.save(self.folder / "metrics.json")


def _step_seed(seed: int, step: int) -> int:
    """A seed for the dropout of one update: no generator state has to be saved."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> np.uint64(1))

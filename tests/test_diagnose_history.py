"""What a curve and a corpus give away: divergence without warm-up, a loss at the unigram entropy, a leaking split."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runs import hurry

from mlmkit.config import DataConfig, MaskingPolicy, ModelConfig, RunConfig, TrainConfig
from mlmkit.corpus import Corpus, load_corpus, sample_corpus
from mlmkit.diagnosis import documents as documents_module
from mlmkit.diagnosis.curves import Curve, check_curve, curve_of, warmup_updates
from mlmkit.diagnosis.documents import check_split
from mlmkit.errors import UserError
from mlmkit.evaluation import Baselines
from mlmkit.history import Evaluation, History
from mlmkit.language import language_named
from mlmkit.optimization import learning_rate
from mlmkit.pretraining import pretrain

UNIGRAM = 3.5
START = 3.9
SEEDS = range(3)


def curve(shape: np.ndarray, seed: int = 0, noise: float = 0.1, **options: Any) -> Curve:
    """A curve with the noise of small batches; warmed up for fifty updates if nothing else is said."""
    losses = shape + np.random.default_rng(seed).normal(0, noise, len(shape))
    return Curve(np.arange(1, len(shape) + 1), losses, **{"warmup": 50, "unigram": UNIGRAM, **options})


def at(level: float, updates: int) -> np.ndarray:
    """From the start to a level within thirty updates, and on there."""
    return level + (START - level) * np.exp(-np.arange(updates) / 10)


def learned(updates: int, plateau: int = 150) -> np.ndarray:
    """Down to the unigram entropy, some time there, then down to a floor of two nats."""
    later = np.maximum(np.arange(updates) - plateau, 0)
    return at(UNIGRAM, updates) - 1.5 * (1 - np.exp(-later / 150))


# --- a loss at the unigram entropy -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("updates", [360, 600, 5000])
def test_a_loss_that_stays_at_the_unigram_entropy_is_stuck(updates: int, seed: int):
    (finding,) = check_curve(curve(at(UNIGRAM, updates), seed))
    assert finding.fault == "stuck_at_unigram"
    assert abs(finding.value) < 0.03  # 0.1 of noise averaged over 300 updates is 0.006; five times that
    assert finding.evidence.endswith("nats, and the unigram entropy is 3.500")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("updates", [2, 40, 340, 360, 400, 600, 5000])
def test_a_run_that_learns_is_not_stuck_whenever_one_looks(updates: int, seed: int):
    assert not check_curve(curve(learned(updates), seed))


def test_a_short_run_may_still_be_on_its_plateau():
    diagnosis = check_curve(curve(at(UNIGRAM, 340)))
    reason = "300 updates after the warm-up are needed to tell, there are 290"
    assert diagnosis.not_checked == {"stuck_at_unigram": reason}
    diagnosis = check_curve(curve(at(UNIGRAM, 2000), warmup=10_000))
    assert diagnosis.not_checked["stuck_at_unigram"].endswith("there are 0")


@pytest.mark.parametrize("level", [2.0, 3.2, UNIGRAM + 0.3])
def test_a_loss_at_another_level_is_not_at_the_unigram_entropy(level: float):
    assert not check_curve(curve(at(level, 2000)))


def test_a_loss_that_is_about_to_leave_the_plateau_is_not_stuck():
    falling = at(UNIGRAM, 700) - np.linspace(0, 0.25, 700) + 0.15
    assert not check_curve(curve(falling))


def test_the_length_of_a_window_does_not_matter():
    one = curve(at(UNIGRAM, 1000))
    ten = replace(one, steps=one.steps[9::10], losses=np.asarray(one.losses).reshape(-1, 10).mean(1))
    assert check_curve(ten).faults == ("stuck_at_unigram",)
    level = float(np.mean(one.losses[-300:]))
    assert check_curve(ten).findings[0].value == pytest.approx(level - UNIGRAM)


def test_held_out_losses_have_the_last_word():
    flat = curve(at(UNIGRAM + 0.18, 1000), other_text=0.2)  # the training text has other frequencies
    assert check_curve(flat).faults == ("stuck_at_unigram",)
    for held_out in (((0, 3.9), (500, 3.3), (1000, 3.1)), ((0, 3.9), (500, 3.2), (1000, 3.55)), ((1000, 3.8),)):
        assert not check_curve(replace(flat, held_out=held_out))
    assert check_curve(replace(flat, held_out=((0, 3.9), (500, 3.53), (1000, 3.51)))).faults == ("stuck_at_unigram",)


# --- divergence --------------------------------------------------------------------------------------------------


def rising(updates: int = 200) -> np.ndarray:
    return START + 3 * (1 - np.exp(-np.arange(updates) / 40))


def leaping(updates: int = 400, end: float = UNIGRAM + 0.1) -> np.ndarray:
    """A leap at the first updates, then a slow return to what needs no context."""
    steps = np.arange(updates)
    return end + (START - end) * (steps == 0) + 4 * np.exp(-steps / 30) * (steps > 0)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", [rising(), leaping(), leaping(100)], ids=["rising", "leaping", "short"])
def test_a_loss_that_rises_from_a_full_learning_rate_diverged(shape: np.ndarray, seed: int):
    diagnosis = check_curve(curve(shape, seed, warmup=0))
    assert diagnosis.faults[0] == "no_warmup_divergence"
    assert "at its peak after 0 updates; the loss began at" in diagnosis.findings[0].evidence
    assert "no_warmup_divergence" not in check_curve(curve(shape, seed, warmup=50)).faults


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_diverged(bad: float):
    shape = at(3.0, 30)
    shape[17:] = bad
    (finding,) = check_curve(curve(shape, warmup=0))
    assert finding.fault == "no_warmup_divergence"
    assert finding.value == 18
    assert finding.evidence.endswith("the loss was not finite at update 18")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_without_warmup_that_learns_did_not_diverge(seed: int):
    for shape in (learned(40), learned(1000), leaping(400, end=2.0), at(UNIGRAM, 40) + 0.1, at(START + 0.3, 40)):
        assert not check_curve(curve(shape, seed, warmup=0))


def test_without_the_unigram_entropy_the_start_is_what_a_leap_is_measured_by():
    assert check_curve(curve(rising(), warmup=0, unigram=None)).faults == ("no_warmup_divergence",)
    assert check_curve(curve(leaping(end=START + 0.1), warmup=0, unigram=None)).faults == ("no_warmup_divergence",)
    assert not check_curve(curve(leaping(), warmup=0, unigram=None))


def test_what_a_curve_does_not_hold_is_said():
    assert check_curve(Curve([], [])).not_checked == {
        "no_warmup_divergence": "fewer than two losses were recorded",
        "stuck_at_unigram": "the unigram entropy of the text is not known",
    }
    told = check_curve(Curve([], [], warmup=0, unigram=UNIGRAM)).not_checked
    assert told["stuck_at_unigram"] == "no loss was recorded"
    assert check_curve(Curve([1, 2], [3.0, 3.0])).not_checked["no_warmup_divergence"] == (
        "the learning rates are not known"
    )


@pytest.mark.parametrize("warmup", [0, 1, 5, 15, 64])
def test_the_warmup_is_read_off_the_learning_rates(warmup: int):
    config = TrainConfig(max_steps=1000, warmup_steps=warmup)
    updates = warmup_updates([learning_rate(step, config) for step in range(1000)])
    assert updates == max(math.ceil(0.9 * warmup) - 1, 0)  # the rate of update i is (i + 1) / warmup of the peak
    assert warmup_updates([1e-3] * 5) == 0


# --- the record of a run -----------------------------------------------------------------------------------------


def history(losses: np.ndarray, evaluations: dict[int, float], warmup: int = 50) -> History:
    config = RunConfig(train=TrainConfig(max_steps=5000, warmup_steps=warmup))
    windows = [
        {"step": 10.0 * (i + 1), "mlm": float(loss), "nsp": 0.7, "grad_norm": 1.0, "lr": 1e-3}
        for i, loss in enumerate(losses.reshape(-1, 10).mean(1))
    ]
    return History(
        config=config.to_dict(),
        corpus={},
        baselines=Baselines(
            4.0, unigram_cross_entropy=UNIGRAM, unigram_entropy=UNIGRAM - 0.02, bigram_cross_entropy=3.0
        ),
        evaluations=[Evaluation(step, 0, 0.0, loss, 0.1, 0.7, 0.5) for step, loss in evaluations.items()],
        training=windows,
    )


def test_a_recorded_run_is_read_with_its_schedule_and_its_evaluations():
    stuck = history(at(UNIGRAM + 0.1, 1000), {0: 4.0, 500: 3.52, 1000: 3.51})
    found = curve_of(stuck)
    assert (found.warmup, found.unigram, found.held_out[1]) == (45, UNIGRAM, (500, 3.52))
    assert check_curve(found).faults == ("stuck_at_unigram",)
    assert not check_curve(curve_of(history(at(UNIGRAM + 0.1, 1000), {0: 4.0, 500: 3.3, 1000: 3.2})))
    assert check_curve(curve_of(history(rising(), {}, warmup=0))).faults == ("no_warmup_divergence",)


def test_a_run_without_a_single_window_is_read_too():
    diagnosis = check_curve(curve_of(history(np.zeros(0), {0: 4.0})))
    assert not diagnosis.checked
    assert diagnosis.not_checked["stuck_at_unigram"] == "no loss was recorded"


SMALL = RunConfig(
    data=DataConfig(max_length=31, short_seq_prob=0.0),
    masking=MaskingPolicy(count="binomial"),
    model=ModelConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.1,
    ),
    train=TrainConfig(
        max_steps=360,
        batch_size=16,
        lr=8e-3,
        warmup_steps=60,
        eval_every=360,
        eval_batches=4,
        precision="fp32",
        device="cpu",
        threads=1,
    ),
)
"""A small network on the market language: two or three seconds."""


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def trained(folder: Path, *settings: str) -> History:
    corpus = sample_corpus(language_named("market"), 4000, cache_dir=folder)
    config = SMALL.override(settings)
    return pretrain(config, folder / "run", corpus=corpus, cache_dir=folder, progress=False).history


def test_a_real_run_that_learns_is_healthy_and_was_looked_at(tmp_path: Path):
    diagnosis = check_curve(curve_of(trained(tmp_path)))
    assert not diagnosis, str(diagnosis)
    assert diagnosis.checked == ("no_warmup_divergence", "stuck_at_unigram")


@pytest.mark.usefixtures("quickly")
def test_a_real_run_whose_learning_rate_is_far_too_low_is_stuck(tmp_path: Path):
    diagnosis = check_curve(curve_of(trained(tmp_path, "train.lr=1e-7", "model.initializer_range=0.05")))
    assert diagnosis.faults == ("stuck_at_unigram",)


@pytest.mark.usefixtures("quickly")
def test_a_real_run_that_begins_with_far_too_high_a_rate_diverges(tmp_path: Path):
    record = trained(tmp_path, "train.lr=0.5", "train.warmup_steps=0", "train.max_steps=40", "train.grad_clip=none")
    (finding,) = check_curve(curve_of(record))
    assert finding.fault == "no_warmup_divergence"
    assert f"the loss began at {record.evaluations[0].mlm_loss:.2f}" in finding.evidence


# --- a leaking split ---------------------------------------------------------------------------------------------

MARKET = language_named("market")


def market_documents(count: int, seed: int = 0) -> list[list[str]]:
    return list(MARKET.documents(count, np.random.default_rng(seed)))


def split(folder: Path, train: list[list[str]], **held_out: list[list[str]]) -> Corpus:
    return Corpus.from_documents("stalls", {"train": train, **held_out}, folder)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("copies", [10, 50, 100])
def test_held_out_documents_that_stand_in_training_are_found(copies: int, seed: int, tmp_path: Path):
    documents = market_documents(500, seed)
    held_out = documents[:copies] + documents[400 : 500 - copies]
    diagnosis = check_split(split(tmp_path, documents[:400], validation=held_out))
    (finding,) = diagnosis
    assert finding.fault == "duplicates_across_split"
    assert finding.value == copies / 100
    assert finding.evidence == (
        f"{copies} of 100 held-out documents of 16 words or more ({copies / 100:.1%}) also stand in train"
    )


def test_copies_are_found_in_any_held_out_part_whatever_their_case_and_points(tmp_path: Path):
    documents = market_documents(300)
    shouted = [[f"{sentence.upper()}!" for sentence in document] for document in documents[:20]]
    corpus = split(tmp_path, documents[:200], validation=documents[200:280], test=shouted)
    (finding,) = check_split(corpus)
    assert finding.value == 20 / 100


def test_copied_sentences_are_found_where_no_whole_document_is(tmp_path: Path):
    def long(count: int, seed: int) -> list[list[str]]:
        """Documents of three sentences of 28 words."""
        flat = [" ".join(document) for document in market_documents(3 * count, seed)]
        return [flat[i : i + 3] for i in range(0, 3 * count, 3)]

    train, held_out = long(200, 0), long(40, 1)
    assert not check_split(split(tmp_path, train, validation=held_out))
    mixed = [[train[number][1], *document[1:]] for number, document in enumerate(held_out)]
    (finding,) = check_split(split(tmp_path, train, validation=mixed))
    assert finding.evidence.startswith("40 of 120 held-out sentences of 16 words or more (33.3%)")


def test_a_copy_that_is_held_out_many_times_is_counted_once(tmp_path: Path):
    documents = market_documents(500)
    held_out = [documents[0]] * 100 + documents[400:]
    assert not check_split(split(tmp_path, documents[:400], validation=held_out))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["market", "forest", "tiny"])
def test_a_language_does_not_repeat_itself_by_chance(name: str, seed: int, tmp_path: Path):
    corpus = sample_corpus(language_named(name), 6000, seed=seed, cache_dir=tmp_path)
    diagnosis = check_split(corpus)
    assert not diagnosis, str(diagnosis)
    if name == "tiny":  # documents of four words, each of them seen a hundred times
        reason = "4 held-out documents of 16 words or more are needed, there are 0"
        assert diagnosis.not_checked == {"duplicates_across_split": reason}
    else:
        assert diagnosis.checked == ("duplicates_across_split",)


def test_of_a_large_held_out_part_a_sample_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(documents_module, "MOST", 100)
    documents = market_documents(2000)
    (finding,) = check_split(split(tmp_path, documents, validation=documents[1000:], test=market_documents(1000, 1)))
    n = int(finding.evidence.split()[2])
    assert 50 <= n <= 100  # the sample is halved until it fits
    assert 0.25 < finding.value < 0.75  # a half, within five standard deviations of 0.05
    assert not check_split(split(tmp_path, documents, test=market_documents(1000, 1)))


def test_a_corpus_without_a_training_part_is_refused(tmp_path: Path):
    corpus = Corpus.from_documents("stalls", {"all": market_documents(10)}, tmp_path)
    with pytest.raises(UserError, match=r"no split 'train' in stalls: use one of all"):
        check_split(corpus)
    assert "there are 0" in str(check_split(corpus, train="all"))


@pytest.mark.slow  # reads the docstrings of a dozen packages
def test_the_split_of_the_embedded_corpus_is_clean():
    diagnosis = check_split(load_corpus("python-docs", progress=False))
    assert not diagnosis, str(diagnosis)
    assert diagnosis.checked

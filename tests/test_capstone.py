"""The capstone: six functions of a learner in the real trainer, measured against the floor."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mlmkit import UserError
from mlmkit.grading import CheckFailed, check
from mlmkit.grading.capstone import RUN, Capstone, Trained, capstone_language, measure, picture, plain, shorter, train
from mlmkit.grading.judge import Bench, grade
from mlmkit.grading.sets import task_named
from mlmkit.grading.submission import read_submission

SET = "17_capstone"


def select_positions(candidates, rate, rng):
    return candidates & (rng.random(candidates.shape) < rate)


def corrupt_tokens(ids, selected, rng, mask_id, ordinary_ids):
    fate = rng.random(ids.shape)
    replacement = rng.choice(ordinary_ids, size=ids.shape)
    changed = np.where(fate < 0.8, mask_id, np.where(fate < 0.9, replacement, ids))
    return np.where(selected, changed, ids)


def make_pairs(documents, rng):
    pairs = []
    for d, document in enumerate(documents):
        for a, b in pairwise(document):
            if rng.random() < 0.5:
                pairs.append((a, b, 0))
            else:
                other = documents[rng.choice([k for k in range(len(documents)) if k != d])]
                pairs.append((a, other[rng.integers(len(other))], 1))
    return pairs


def mlm_loss(logits, labels):
    selected = labels != -100
    return F.cross_entropy(logits[selected], labels[selected], reduction="sum") / max(1, int(selected.sum()))


def pretraining_loss(mlm_logits, labels, nsp_logits, next_sentence_label):
    mlm, nsp = mlm_loss(mlm_logits, labels), F.cross_entropy(nsp_logits, next_sentence_label)
    return mlm + nsp, mlm, nsp


def attention(q, k, v, bias):
    return (q @ k.transpose(1, 2) / k.shape[2] ** 0.5 + bias).softmax(-1) @ v


PARTS: list[Callable[..., Any]] = [
    select_positions, corrupt_tokens, make_pairs, mlm_loss, pretraining_loss, attention,
]  # fmt: skip


def uniform_attention(q, k, v, bias):
    return v.mean(1, keepdim=True).expand(v.shape)


def test_a_few_updates_run_and_tell_their_losses():
    trained = train(*PARTS, run=shorter(20))
    assert [point.step for point in trained.curve] == [20]
    assert trained.curve[0].mlm < 4
    assert all(np.isfinite(array).all() for array in trained.weights.values())
    assert set(plain(trained)) == {"weights", "curve"}


def test_the_same_seed_gives_the_same_weights():
    one, other = (train(*PARTS, run=shorter(3), seed=5) for _ in range(2))
    for name, array in one.weights.items():
        np.testing.assert_array_equal(array, other.weights[name])


def test_the_learners_own_attention_is_the_one_that_trains():
    seen = []

    def watched(q, k, v, bias):
        seen.append(tuple(q.shape))
        assert tuple(bias.shape) == (q.shape[1], q.shape[1])
        return attention(q, k, v, bias)

    train(*PARTS[:5], watched, run=shorter(2))
    assert len(seen) == 2 * 2, "two layers, two updates"


def test_a_model_that_learned_nothing_earns_next_to_nothing():
    trained = train(*PARTS, run=shorter(1))
    result = measure(trained.weights, trained.seed)
    assert result.share < 0.1
    assert result.gap > 0.9


def test_a_loss_that_is_no_number_stops_the_training():
    def broken(*arguments):
        total, mlm, nsp = pretraining_loss(*arguments)
        return total * float("nan"), mlm, nsp

    with pytest.raises(UserError, match="became nan after 1 updates"):
        train(*PARTS[:4], broken, PARTS[5], run=shorter(3))


@pytest.mark.parametrize("weights", [{}, None, {"a": np.zeros(2)}])
def test_other_weights_are_refused(weights: Any):
    with pytest.raises(UserError, match="not those of the capstone's model"):
        measure(weights, 0)


@pytest.mark.parametrize("spoil", [lambda a: a[:1], lambda a: a * np.nan])
def test_weights_of_another_form_are_refused(spoil: Callable[[Any], Any]):
    weights = dict(train(*PARTS, run=shorter(1)).weights)
    name = max(weights, key=lambda key: weights[key].size)
    with pytest.raises(UserError, match="should be finite and of shape"):
        measure({**weights, name: spoil(weights[name])}, 0)


def test_every_seed_is_a_language_of_its_own():
    one, other = capstone_language(1), capstone_language(2)
    assert one.words == other.words
    assert not np.allclose(
        one.sample(500, np.random.default_rng(0))[0].mean(), other.sample(500, np.random.default_rng(0))[0].mean()
    )


@pytest.mark.parametrize(
    ("gap", "accuracy", "says"),
    [
        (0.05, 0.70, "0.050 above the floor"),
        (0.4, 0.70, "not all of it"),
        (1.0, 0.70, "nothing about their context"),
        (3.0, 0.70, "surer of wrong words"),
        (0.05, 0.52, "does not tell the next sentence"),
    ],
)
def test_the_numbers_are_put_into_words(gap: float, accuracy: float, says: str):
    assert says in Capstone(gap, 1.7, 2.7, accuracy, 0.72, 1.0).explain()


def test_the_check_wants_a_trained_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLMKIT_PROGRESS", str(tmp_path / "progress.sqlite"))
    with pytest.raises(NotImplementedError, match="no model yet"):
        check("17.1", None)
    with pytest.raises(CheckFailed, match="wants what train returns"):
        check("17.1", {"weights": {}})
    with pytest.raises(CheckFailed, match="% of the points"):
        check("17.1", train(*PARTS, run=shorter(1)))


def test_the_curve_is_drawn_between_the_baselines():
    trained = train(*PARTS, run=shorter(4))
    figure = picture(trained.curve, measure(trained.weights, 0))
    assert [line.get_label() for line in figure.axes[0].lines][1:] == ["unigram entropy", "floor"]


# For marks


def submission(folder: Path, *replaced: Callable[..., Any], source: str = "") -> Any:
    """The six functions in a notebook, some of them replaced by others."""
    functions = {function.__name__: inspect.getsource(function) for function in PARTS}
    for function in replaced:
        name = function.__name__.removeprefix("uniform_")
        functions[name] = inspect.getsource(function).replace(function.__name__, name, 1)
    code = (
        "from itertools import pairwise\n\nimport numpy as np\nimport torch\nimport torch.nn.functional as F\n\n"
        + "\n\n".join(functions.values())
    )
    path = folder / "ada" / SET / f"{SET}.ipynb"
    path.parent.mkdir(parents=True)
    cell = {"cell_type": "code", "metadata": {"nbgrader": {"grade_id": "answer-17-1"}}, "source": code + "\n" + source}
    path.write_text(json.dumps({"cells": [cell]}))
    return read_submission(path)


@pytest.mark.slow
def test_right_functions_come_near_the_floor_and_earn_all_points(tmp_path: Path):
    with Bench() as bench:
        (mark,) = grade(submission(tmp_path), bench, seed=1)
    assert mark.verdict.passed, mark.verdict
    assert mark.points == task_named("17.1").points
    assert "above the floor" in mark.verdict.why


@pytest.mark.slow
def test_a_wrong_part_costs_its_share_and_is_named(tmp_path: Path):
    with Bench() as bench:
        (mark,) = grade(submission(tmp_path, uniform_attention), bench, seed=1)
    assert mark.verdict.status == "partly"
    assert 0.1 < mark.verdict.share < 0.75
    assert "attention does not pass the check of task 09.10" in mark.verdict.problem
    assert "above the floor" in mark.verdict.problem


CHEATS = {
    "functions of the package": """
from mlmkit.masking import select as select_positions
from mlmkit.model import attention
from mlmkit.losses import mlm_loss
del make_pairs, corrupt_tokens, pretraining_loss
""",
    "another trainer": """
import mlmkit.grading.capstone as c
c.train = lambda *a, **k: None
""",
    "weights of one's own": """
import mlmkit.grading.capstone as c
c.plain = lambda t: {"weights": {"a": [1.0]}}
""",
    "an end before the training": """
import os
try:
    import mlmkit
    os._exit(0)
except ModuleNotFoundError:
    pass
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("cheat", CHEATS)
def test_a_capstone_that_cheats_earns_nothing(tmp_path: Path, cheat: str):
    with Bench() as bench:
        if not bench.protections.complete:
            pytest.skip(f"not all walls can be built here: {bench.protections}")
        (mark,) = grade(submission(tmp_path, source=CHEATS[cheat]), bench, seed=1)
    assert mark.points == 0, mark.verdict
    assert mark.verdict.problem


def test_the_run_is_short():
    assert RUN.max_steps <= 600
    assert isinstance(train(*PARTS, run=shorter(1)), Trained)
    assert torch.get_num_threads() >= 1

"""The record of a run: it survives the disk, names its best moment, and a damaged one is told by name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch

from mlmkit import history as module
from mlmkit.errors import UserError
from mlmkit.evaluation import Baselines
from mlmkit.history import Evaluation, History, describe_hardware, describe_versions

LOSSES = [5.0, 3.25, 3.5, 3.25]


def make_history(losses: list[float] = LOSSES) -> History:
    return History(
        config={"train": {"lr": 0.1}},
        corpus={"name": "odd", "fingerprint": "0123456789abcdef", "report": {}},
        baselines=Baselines(
            uniform=math.log(90), unigram_cross_entropy=4.0, unigram_entropy=3.9, bigram_cross_entropy=3.5
        ),
        hardware={"device": "cpu"},
        versions={"python": "3.11"},
        status="finished",
        evaluations=[Evaluation(10 * i, 1000 * i, 1.5 * i, loss, 0.25, 0.7, 0.5) for i, loss in enumerate(losses)],
        training=[{"step": 10, "mlm": 4.5, "nsp": 0.7, "grad_norm": 1.0, "lr": 0.1}],
    )


def test_what_is_saved_is_loaded_again(tmp_path: Path):
    make_history().save(tmp_path / "metrics.json")
    assert History.load(tmp_path) == make_history()
    assert History.load(str(tmp_path)) == make_history()


def test_metrics_json_can_be_read_without_us(tmp_path: Path):
    make_history().save(tmp_path / "metrics.json")
    data = json.loads((tmp_path / "metrics.json").read_text())
    assert data["unigram_entropy"] == 3.9
    assert data["corpus_fingerprint"] == "0123456789abcdef"
    assert data["evaluations"][1] == {
        "step": 10,
        "tokens": 1000,
        "seconds": 1.5,
        "mlm_loss": 3.25,
        "mlm_accuracy": 0.25,
        "nsp_loss": 0.7,
        "nsp_accuracy": 0.5,
    }
    assert data["baselines"]["coin"] == math.log(2)


def test_best_is_the_lowest_loss_and_the_earlier_of_two_equal_ones():
    history = make_history()
    assert history.best.step == 10
    assert history.last.step == 30


@pytest.mark.parametrize("which", ["best", "last"])
def test_a_run_without_evaluations_has_neither_best_nor_last(which: str):
    with pytest.raises(UserError, match="the run has no evaluation yet"):
        getattr(make_history([]), which)


def test_an_evaluation_reads_as_one_line():
    line = str(Evaluation(500, 1_234_567, 61.4, 4.5678, 0.2345, 0.6543, 0.75))
    assert "\n" not in line
    for part in ("step    500", "1.23 M tokens", "61 s", "MLM 4.568 nats (23.4%)", "NSP 0.654 (75.0%)"):
        assert part in line


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (Path.unlink, r"metrics\.json does not exist; is .* a folder written by `mlmkit pretrain`\?"),
    "cut": (lambda p: p.write_text(p.read_text()[:100]), r"metrics\.json is damaged, it is not JSON"),
    "a list": (lambda p: p.write_text("[]"), r"metrics\.json is damaged, it holds no JSON object"),
    "no status": (lambda p: rewrite(p, lambda d: d.pop("status")), r"metrics\.json is damaged: .*'status'"),
    "a strange field": (
        lambda p: rewrite(p, lambda d: d["evaluations"][0].update(color="red")),
        r"metrics\.json is damaged: .*'color'",
    ),
    "no baselines": (lambda p: rewrite(p, lambda d: d.update(baselines=None)), r"metrics\.json is damaged"),
    "no evaluations": (lambda p: rewrite(p, lambda d: d.update(evaluations=None)), r"metrics\.json is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_refused_in_one_line_that_names_the_file(tmp_path: Path, damage: str):
    path = tmp_path / "metrics.json"
    make_history().save(path)
    spoil, message = DAMAGES[damage]
    spoil(path)
    with pytest.raises(UserError, match=message) as caught:
        History.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_hardware_says_on_what_it_ran(monkeypatch: pytest.MonkeyPatch):
    found = describe_hardware(torch.device("cpu"), "fp32")
    assert found["device"] == "cpu"
    assert found["precision"] == "fp32"
    assert found["threads"] == torch.get_num_threads()
    assert found["cores"] >= 1
    assert found["cpu"]
    json.dumps(found)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device}")
    assert describe_hardware(torch.device("cuda:1"), "bf16")["device"] == "Card cuda:1"


def test_versions_name_what_decides_the_numbers(monkeypatch: pytest.MonkeyPatch):
    found = describe_versions()
    assert found["torch"] == torch.__version__
    assert found.keys() == {"python", "mlmkit", "torch", "numpy", "tokenizers", "datasets"}

    def nothing(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(module, "version", nothing)
    assert describe_versions()["torch"] == "not installed"


def test_plot_draws_the_record():
    from matplotlib import pyplot as plt

    figure = make_history().plot()
    drawn = next(line for line in figure.axes[0].lines if line.get_label() == "held out")
    assert list(drawn.get_ydata()) == LOSSES
    plt.close(figure)

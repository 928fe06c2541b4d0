"""The encoder kept, the head replaced: what pre-training buys, and every part of the recipe."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import small_config, small_model, tokenizer_of
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from mlmkit.checkpoint import save
from mlmkit.config import ModelConfig, TrainConfig
from mlmkit.errors import UserError
from mlmkit.exact import exact_batches
from mlmkit.finetuning import (
    Example,
    FinetuneConfig,
    Scores,
    Task,
    attach_head,
    bag_of_words,
    compare,
    finetune,
    layer_groups,
    majority_class,
    most_frequent_tag,
)
from mlmkit.finetuning import confusion_matrix as our_confusion
from mlmkit.finetuning.comparison import Comparison
from mlmkit.finetuning.counting import look, overlap
from mlmkit.finetuning.groups import make_optimizer
from mlmkit.finetuning.heads import SequenceClassifier
from mlmkit.finetuning.recipe import rate
from mlmkit.finetuning.seeds import scratch_recipe
from mlmkit.finetuning.task import PARTS
from mlmkit.finetuning.training import evaluate_part, prepare_task, train_one
from mlmkit.language import Language, draw_language
from mlmkit.masking import MaskingPolicy
from mlmkit.model import BertForPreTraining
from mlmkit.optimization import learning_rate, train_step
from mlmkit.optimization import make_optimizer as pretraining_optimizer
from mlmkit.pretraining import TrainingDiverged
from mlmkit.tokenizer import SPECIAL_TOKENS, Tokenizer, word_tokenizer
from mlmkit.weights import encoder_to_hf, write_tensors

DATA = Path(__file__).parents[2] / "shared" / "data"
SIGNS = 120
"""Words of each class of the made-up language: far more than sixty sentences show often enough."""
FAST = FinetuneConfig(epochs=10, lr=2e-3, batch_size=16, precision="fp32", device="cpu")
Pretrained = tuple[BertForPreTraining, Tokenizer]


# A language with two topics and two word classes, a model that has read it, and tasks with known answers


def language() -> Language:
    letters = "bdfgklmnprst"
    made_up = [a + b + c for a in letters for b in "aeiou" for c in letters]
    words = np.random.default_rng(0).permutation(made_up)[: 2 * SIGNS].tolist()
    return draw_language(
        1,
        [words[:SIGNS], words[SIGNS:]],
        follows=[[1], [0]],
        topics=("sea", "hill"),
        lengths=(5, 5),
        likeness=0.3,
        peak=0.3,
    )


@pytest.fixture(scope="session")
def pretrained() -> Pretrained:
    """A model after four hundred updates of masked language modeling: three seconds of one core."""
    spoken = language()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = word_tokenizer(spoken.words)
        model = BertForPreTraining(
            ModelConfig(
                vocab_size=tokenizer.vocab_size,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=32,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                initializer_range=0.1,
            )
        )
        recipe = TrainConfig(max_steps=400, lr=1e-2, warmup_steps=30)
        optimizer = pretraining_optimizer(model, recipe)
        rng, policy = np.random.default_rng(0), MaskingPolicy(count="binomial")
        for step, batch in enumerate(exact_batches(spoken, 400 * 64, rng, policy, batch_size=64)):
            train_step(model, batch, optimizer, lr=learning_rate(step, recipe))
    return model.eval(), tokenizer


def topics(examples: int, seed: int = 0, held_out: int = 150) -> Task:
    """Tell the topic of a document."""
    spoken, rng = language(), np.random.default_rng(seed)

    def part(count: int) -> tuple[Example, ...]:
        words, topic = spoken.sample(count, rng)
        texts = (" ".join(spoken.words[w] for w in row) for row in words)
        return tuple(Example((text,), (int(k),)) for text, k in zip(texts, topic, strict=True))

    return Task("topics", "sentence", ("sea", "hill"), part(examples), part(held_out), part(held_out))


def words(examples: int, held_out: int = 60) -> Task:
    """Tag each word with the topic of its document, which a word by itself often does not tell."""
    return replace(
        topics(examples, held_out=held_out),
        kind="tokens",
        **{part: tuple(map(at_each_word, getattr(topics(examples, held_out=held_out), part))) for part in PARTS},
    )


def at_each_word(example: Example) -> Example:
    text = tuple(example.text[0].split())
    return Example(text, example.labels * len(text))


def pairs(examples: int = 60, held_out: int = 40) -> Task:
    """Tell whether a sentence is said again."""
    spoken, rng = language(), np.random.default_rng(0)

    def part(count: int) -> tuple[Example, ...]:
        words = [[spoken.words[w] for w in row] for row in spoken.sample(2 * count, rng)[0][:, :3]]
        return tuple(
            Example((" ".join(words[i]), " ".join(words[i if i % 2 else count + i])), (i % 2,)) for i in range(count)
        )

    return Task("again", "pair", ("no", "yes"), part(examples), part(held_out), part(held_out))


def tiny(kind: str = "sentence", count: int = 12) -> tuple[Pretrained, Task]:
    """A network of a few thousand weights and a task that costs nothing."""
    tokenizer = tokenizer_of([*SPECIAL_TOKENS, *"abcdefgh"])
    model = small_model(vocab_size=tokenizer.vocab_size)
    rng = np.random.default_rng(0)
    texts = [rng.choice(list("abcdefgh"), rng.integers(2, 9)).tolist() for _ in range(count)]
    if kind == "tokens":
        examples = [Example(tuple(t), tuple(int(w < "e") for w in t)) for t in texts]
    else:
        examples = [Example((" ".join(t),), (int(t[0] < "e"),)) for t in texts]
    part = tuple(examples)
    return (model, tokenizer), Task("tiny", kind, ("x", "y"), part, part[:8], part[4:])  # type: ignore[arg-type]


QUICK = FinetuneConfig(epochs=2, batch_size=4, lr=1e-3, precision="fp32", device="cpu")


def train(config: FinetuneConfig = QUICK, seed: int = 0, kind: str = "sentence", **options: Any) -> tuple[Any, Any]:
    (model, tokenizer), task = tiny(kind)
    return train_one(model, prepare_task(task, tokenizer, 32), config, seed, **options)


# What pre-training buys


def test_with_sixty_labeled_examples_a_pretrained_network_beats_random_initialization(pretrained):
    task = topics(60)
    comparison = compare(pretrained, task, FAST, seeds=5, epochs=[10])
    random = comparison.rows()[1]
    assert random.difference is not None
    assert random.difference.excludes_zero
    assert random.difference.mean > 0.05, "by more than one answer in twenty"
    assert (comparison.pretrained.values() > comparison.scratch.values()).all(), "in each of the seeds"
    assert comparison.pretrained.interval().mean > 0.8
    majority = comparison.rows()[-1]
    assert majority.label == "majority class"
    assert majority.mean.mean < 0.65


def test_a_pretrained_network_tags_words_by_what_stands_around_them(pretrained):
    task = words(40)
    ours, random = (finetune(pretrained, task, FAST, seeds=3, from_scratch=new) for new in (False, True))
    assert (ours.values() > random.values() + 0.05).all(), "by more than one word in twenty, in each of the seeds"
    counted = most_frequent_tag(task).test.accuracy
    assert (ours.values() > counted + 0.05).all(), "more than the words by themselves tell"


def test_a_pair_is_read_as_two_segments(pretrained):
    """The two sentences of "yes" are equal; only a network that sees both can tell."""
    network, outcome = train_one(
        pretrained[0], prepare_task(pairs(), pretrained[1], 32), replace(FAST, epochs=15, dropout=0.0), seed=0
    )
    assert outcome.validation.count == 40
    assert isinstance(network, SequenceClassifier)
    assert outcome.epochs[-1].train_loss < outcome.epochs[0].train_loss


# The head


@pytest.mark.parametrize("kind", ["sentence", "pair", "tokens"])
def test_the_encoder_is_a_copy_and_the_head_is_new(kind):
    model = small_model()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    torch.manual_seed(0)
    network = attach_head(model, kind, 3, FinetuneConfig(dropout=0.25))
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(network.encoder.state_dict()[name], tensor)
    assert network.classifier.weight.shape == (3, model.config.hidden_size)
    assert network.config.hidden_dropout_prob == network.config.attention_probs_dropout_prob == 0.25
    assert network.dropout.p == 0.25
    assert model.config.hidden_dropout_prob == 0.0, "the pre-trained model keeps its own"
    with torch.no_grad():
        network.encoder.embeddings.token.weight.add_(1)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_a_text_is_read_from_cls_through_the_pooler_of_nsp():
    model = small_model()
    network = attach_head(model, "sentence", 2, FinetuneConfig()).eval()
    ids = torch.randint(5, 50, (3, 9))
    hidden = model.encoder(ids)  # (B, S, H), all positions
    by_hand = network.classifier(torch.tanh(model.nsp.pooler(hidden[:, 0])))
    # the last layer is computed at [CLS] only: the same sums in another order, in fp32
    torch.testing.assert_close(network(ids), by_hand, atol=1e-5, rtol=1e-5)


def test_padding_changes_no_score():
    for kind in ("sentence", "tokens"):
        network = attach_head(small_model(), kind, 2, FinetuneConfig()).eval()
        ids, real = torch.randint(5, 50, (2, 9)), torch.ones(2, 9, dtype=torch.long)
        longer, padded = torch.nn.functional.pad(ids, (0, 7)), torch.nn.functional.pad(real, (0, 7))
        scores = network(longer, None, padded)
        scores = scores if kind == "sentence" else scores[:, :9]
        torch.testing.assert_close(scores, network(ids, None, real), atol=1e-5, rtol=1e-5)  # fp32 sums


def test_from_scratch_nothing_but_the_sizes_is_kept():
    model = small_model()
    torch.manual_seed(0)
    a = attach_head(model, "sentence", 2, FinetuneConfig(), from_scratch=True)
    for name, tensor in a.encoder.named_parameters():
        if tensor.dim() == 2:
            assert not torch.equal(tensor, model.encoder.state_dict()[name]), name
    assert not torch.equal(a.pooler.weight, model.nsp.pooler.weight)
    assert (a.encoder.embeddings.token.weight[model.config.pad_token_id] == 0).all()
    torch.manual_seed(1)
    b = attach_head(model, "sentence", 2, FinetuneConfig(), from_scratch=True)
    assert not torch.equal(a.encoder.embeddings.token.weight, b.encoder.embeddings.token.weight)


# Layers: their rates, and which of them rest


def test_the_learning_rate_falls_by_a_factor_from_each_layer_to_the_one_below():
    network = attach_head(small_model(num_hidden_layers=3), "sentence", 2, FinetuneConfig())
    groups = layer_groups(network, FinetuneConfig(lr=1.0, layer_decay=0.5))
    assert [g.name for g in groups] == ["head", "layer 3", "layer 2", "layer 1", "embeddings"]
    assert [g.lr for g in groups] == [1.0, 0.5, 0.25, 0.125, 0.0625]
    assert set(groups[0].parameters) == {"pooler.weight", "pooler.bias", "classifier.weight", "classifier.bias"}
    assert all(name.startswith("encoder.layers.2.") for name in groups[1].parameters)
    named = [name for g in groups for name in g.parameters]
    assert sorted(named) == sorted(name for name, _ in network.named_parameters()), "each parameter in one group"


def test_the_optimizer_gives_every_parameter_its_rate_and_decays_matrices_only():
    config = FinetuneConfig(lr=1.0, layer_decay=0.5, weight_decay=0.1)
    network = attach_head(small_model(), "tokens", 2, config)
    groups = layer_groups(network, config)
    peaks = {id(p): g.lr for g in groups for p in g.parameters.values()}
    found = {id(p): group for group in make_optimizer(groups, config).param_groups for p in group["params"]}
    assert found.keys() == peaks.keys()
    for parameter in network.parameters():
        group = found[id(parameter)]
        assert group["peak"] == peaks[id(parameter)]
        assert group["weight_decay"] == (0.1 if parameter.dim() == 2 else 0.0)


@pytest.mark.parametrize(("frozen", "resting"), [(None, []), (0, ["embeddings."]), (1, ["embeddings.", "layers.0."])])
def test_frozen_layers_are_unchanged_bit_for_bit_and_all_others_learn(frozen, resting):
    (model, _), _ = tiny()
    network, _ = train(replace(QUICK, freeze_layers=frozen, weight_decay=0.1))
    before = model.encoder.state_dict()
    for name, tensor in network.encoder.named_parameters():
        at_rest = any(name.startswith(prefix) for prefix in resting)
        assert torch.equal(tensor, before[name]) == at_rest, name


def test_no_more_layers_can_be_frozen_than_there_are():
    with pytest.raises(UserError, match="freeze_layers=3, but the network has 2 layers; freeze at most 2"):
        train(replace(QUICK, freeze_layers=3))
    network, _ = train(replace(QUICK, freeze_layers=2))
    assert not any(p.requires_grad for p in network.encoder.parameters())


def test_layers_with_a_low_rate_move_less():
    (model, _), _ = tiny()
    before = model.encoder.state_dict()

    def moved(config: FinetuneConfig) -> float:
        after = train(config)[0].encoder.state_dict()["layers.0.up.weight"]
        return float((after - before["layers.0.up.weight"]).abs().mean())

    # AdamW's step is about the rate, whatever the gradient; the first layer is two below the head: a factor of 1/16
    assert moved(replace(QUICK, layer_decay=0.25)) < moved(QUICK) / 8


# The recipe


def test_the_rate_rises_to_one_and_falls_to_zero():
    config = FinetuneConfig(warmup=0.1)
    rates = [rate(step, 100, config) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(1 / 90)
    assert rate(0, 100, FinetuneConfig(warmup=0.0)) == 1.0


@pytest.mark.parametrize("kind", ["sentence", "tokens"])
def test_one_seed_gives_the_same_network_bit_for_bit_and_another_seed_another(kind):
    config = replace(QUICK, dropout=0.2)
    (model, tokenizer), task = tiny(kind)
    material, state = prepare_task(task, tokenizer, 32), torch.get_rng_state()
    (a, first), (b, second), (c, _) = (train_one(model, material, config, seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state()), "PyTorch's own state is left as it was"
    assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert not torch.equal(a.classifier.weight, c.classifier.weight)
    assert first.epochs == second.epochs


def test_the_seed_draws_the_first_weights_of_the_head():
    still = replace(QUICK, epochs=1, lr=1e-12)  # so small that nothing moves
    a, b = (train(still, seed)[0].classifier.weight for seed in (1, 2))
    assert (a - b).abs().mean() > 0.1, "drawn with a deviation of 0.3"


def test_a_small_task_can_be_learned_by_heart():
    _, outcome = train(replace(QUICK, epochs=60, lr=3e-3, dropout=0.0))
    assert outcome.epochs[-1].train_loss < 0.05
    assert outcome.validation.accuracy == outcome.test.accuracy == 1.0, "both parts are in the training part here"


def test_training_stops_when_validation_has_not_improved_and_keeps_the_best_state(monkeypatch):
    from mlmkit.finetuning import training

    accuracies = iter([0.5, 0.7, 0.6, 0.7, 0.9])
    states = []
    measure = training.evaluate_part

    def scripted(network: Any, material: Any, part: str, size: int = 64) -> Any:
        if part == "validation" and len(states) < 4:
            states.append({name: t.clone() for name, t in network.state_dict().items()})
            right = round(100 * next(accuracies))
            return Scores(np.array([[right, 100 - right], [0, 0]])), 1.0
        return measure(network, material, part, size)

    monkeypatch.setattr(training, "evaluate_part", scripted)
    network, outcome = train(replace(QUICK, epochs=5, patience=2))
    assert [e.accuracy for e in outcome.epochs] == [0.5, 0.7, 0.6, 0.7]
    assert outcome.kept == 2, "an equal accuracy with an equal loss is no improvement"
    assert all(torch.equal(t, states[1][name]) for name, t in network.state_dict().items())
    assert not all(torch.equal(t, states[3][name]) for name, t in network.state_dict().items())


def test_of_equal_accuracies_the_lower_loss_is_kept(monkeypatch):
    from mlmkit.finetuning import training

    losses = iter([1.0, 0.5, 0.8, 0.0, 0.0])
    same = Scores(np.array([[1, 0], [0, 1]]))
    monkeypatch.setattr(training, "evaluate_part", lambda *_: (same, next(losses)))
    assert train(replace(QUICK, epochs=3))[1].kept == 2


def test_without_patience_all_epochs_are_read():
    _, outcome = train(replace(QUICK, epochs=4))
    assert [e.number for e in outcome.epochs] == [1, 2, 3, 4]


def test_a_loss_that_is_not_finite_is_an_error():
    (model, tokenizer), task = tiny()
    with torch.no_grad():
        model.encoder.embeddings.norm.weight[0] = float("nan")
    with pytest.raises(TrainingDiverged, match="lower lr"):
        finetune((model, tokenizer), task, QUICK, seeds=1)


def test_words_beyond_the_longest_input_get_the_usual_label_and_no_loss():
    (model, tokenizer), _ = tiny("tokens")
    examples = (Example(("a",) * 10, (0,) * 10), Example(("a", "b"), (1, 1)))
    task = Task("long", "tokens", ("x", "y"), examples, examples, examples)
    material = prepare_task(task, tokenizer, 8)
    assert material.cut == 3, "one text, in three parts"
    network = attach_head(model, "tokens", 2, QUICK).eval()
    with torch.no_grad():  # always answer "y"
        network.classifier.weight.zero_()
        network.classifier.bias.copy_(torch.tensor([0.0, 5.0]))
    scores, loss = evaluate_part(network, material, "test")
    assert scores.confusion.tolist() == [[4, 6], [0, 2]], "six of the ten words fit; the other four are called x"
    right, wrong = np.log1p(np.exp(-5.0)), np.log1p(np.exp(5.0))
    assert loss == pytest.approx((6 * wrong + 2 * right) / 8, rel=1e-5)  # fp32


def test_a_part_is_measured_without_dropout():
    (model, tokenizer), task = tiny()
    network = attach_head(model, "sentence", 2, replace(QUICK, dropout=0.5)).train()
    material = prepare_task(task, tokenizer, 32)
    (_, first), (_, second) = (evaluate_part(network, material, "test") for _ in range(2))
    assert first == second


def test_bf16_and_no_clipping_train_too():
    _, outcome = train(replace(QUICK, precision="bf16", grad_clip=None))
    assert np.isfinite(outcome.epochs[-1].train_loss)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("epochs=0", "epochs must be at least 1, got 0"),
        ("batch_size=0", "batch_size must be at least 1"),
        ("lr=0", "lr must be positive"),
        ("warmup=1.5", r"warmup must be in \[0, 1\]"),
        ("weight_decay=-1", "weight_decay must be at least 0"),
        ("dropout=1", r"dropout must be in \[0, 1\)"),
        ("layer_decay=0", r"layer_decay must be in \(0, 1\]"),
        ("freeze_layers=-1", "freeze_layers must be at least 0, or none"),
        ("patience=0", "patience must be at least 1, or none"),
        ("max_length=7", "max_length must be at least 8, or none"),
        ("grad_clip=0", "grad_clip must be positive, or none"),
        ("seed=-1", r"seed must be in \[0, 2\*\*62\)"),
        ("lr=fast", "lr expects a number, got 'fast'"),
        ("precision=fp64", "precision expects one of auto, fp32, bf16"),
        ("layr_decay=1", "no field 'layr_decay'; did you mean 'layer_decay'"),
        ("lr", "a setting looks like lr=1e-4, got 'lr'"),
    ],
)
def test_a_wrong_setting_is_named(setting, said):
    with pytest.raises(UserError, match=said):
        FinetuneConfig().override([setting])


def test_settings_are_read_as_their_types():
    config = FinetuneConfig().override(["lr=1e-4", "freeze_layers=1", "patience=none", "grad_clip=off"])
    assert (config.lr, config.freeze_layers, config.patience, config.grad_clip) == (1e-4, 1, None, None)
    assert FinetuneConfig(**config.to_dict()) == config


def test_random_weights_are_trained_without_what_protects_pretrained_ones():
    recipe = scratch_recipe(FinetuneConfig(lr=0.1, layer_decay=0.5, freeze_layers=2, epochs=6))
    assert recipe == FinetuneConfig(lr=0.1, epochs=6)


# Several seeds


def test_a_result_keeps_every_seed_and_says_mean_spread_and_interval(tmp_path):
    start, task = tiny()
    told: list[str] = []
    result = finetune(start, task, QUICK, seeds=3, out_dir=tmp_path / "out", report=told.append)
    values = result.values()
    assert [o.seed for o in result.outcomes] == [0, 1, 2]
    assert result.deviation() == pytest.approx(values.std(ddof=1))
    # 4.303 is the 97.5 % point of Student's distribution with two degrees of freedom
    assert result.interval().half_width == pytest.approx(4.303 * values.std(ddof=1) / 3**0.5, rel=1e-3)
    assert f"test        accuracy {100 * values.mean():.1f} ±" in str(result)
    assert "3 seeds" in str(result)
    assert len(told) == 3
    assert told[1].startswith("seed 1: validation accuracy")
    data = json.loads((tmp_path / "out" / "finetune.json").read_text())
    assert data == json.loads(json.dumps(result.to_dict()))
    assert data["task"]["fingerprint"] == task.fingerprint
    assert data["config"]["lr"] == QUICK.lr
    assert data["versions"]["torch"]
    assert data["hardware"]["device"] == "cpu"
    assert data["seconds"] > 0
    assert [s["test"]["accuracy"] for s in data["seeds"]] == values.tolist()


def test_the_seed_that_is_best_on_the_validation_part_is_kept():
    start, task = tiny()
    result = finetune(start, task, QUICK, seeds=[3, 5, 8])
    best = max(result.outcomes, key=lambda o: (o.validation.accuracy, -o.epochs[o.kept - 1].loss))
    assert result.best is best
    scores, _ = evaluate_part(result.classifier.network, prepare_task(task, start[1], 32), "test")
    assert scores.confusion.tolist() == best.test.confusion.tolist()


def test_a_folder_of_ours_or_of_transformers_is_opened(tmp_path):
    (model, tokenizer), task = tiny()
    save(model, tokenizer, tmp_path / "whole")
    transformers = encoder_to_hf(model.encoder, model.config)  # an encoder alone, as BertModel
    shutil.copytree(tmp_path / "whole", tmp_path / "encoder")
    write_tensors(tmp_path / "encoder" / "model.safetensors", transformers)
    there = [finetune(start, task, QUICK, seeds=1) for start in ((model, tokenizer), tmp_path / "whole")]
    assert there[0].outcomes[0].epochs == there[1].outcomes[0].epochs
    assert finetune(tmp_path / "encoder", task, QUICK, seeds=1).outcomes[0].epochs != there[0].outcomes[0].epochs
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(UserError, match="a run that has not finished"):
        finetune(tmp_path / "run", task, QUICK, seeds=1)


def test_one_seed_has_no_interval():
    start, task = tiny()
    result = finetune(start, task, replace(QUICK, seed=7, max_length=8), seeds=1)
    assert result.outcomes[0].seed == 7
    assert result.deviation() is None
    assert "±" not in str(result)
    assert "texts were longer than 8 tokens" in str(result)


@pytest.mark.parametrize("seeds", [0, [], [1, 1], [-1]])
def test_seeds_must_be_some_different_numbers(seeds):
    start, task = tiny()
    with pytest.raises(UserError, match="seeds must be"):
        finetune(start, task, QUICK, seeds=seeds)


def test_a_folder_that_holds_something_else_is_not_written(tmp_path):
    start, task = tiny()
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no fine-tuned network"):
        finetune(start, task, QUICK, seeds=1, out_dir=tmp_path)
    with pytest.raises(UserError, match="is a file"):
        finetune(start, task, QUICK, seeds=1, out_dir=tmp_path / "notes.txt")


def test_a_text_cannot_be_longer_than_the_network_reads():
    start, task = tiny()
    with pytest.raises(UserError, match="max_length=33, but the network reads at most 32 tokens"):
        finetune(start, task, replace(QUICK, max_length=33), seeds=1)


def test_a_device_that_is_not_there_is_named():
    start, task = tiny()
    with pytest.raises(UserError, match="device"):
        finetune(start, task, replace(QUICK, device="cuda:99"), seeds=1)


# Scores


def test_scores_are_those_of_scikit_learn():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        true, answers = rng.integers(0, 3, 40), rng.choice([0, 1, 2, 4], 40)  # label 3 neither occurs nor is answered
        scores = Scores(our_confusion(true, answers, 5))
        assert scores.confusion.tolist() == confusion_matrix(true, answers, labels=range(5)).tolist()
        assert scores.accuracy == pytest.approx(accuracy_score(true, answers))
        assert scores.macro_f1 == pytest.approx(f1_score(true, answers, average="macro", zero_division=0))
        assert scores.count == 40


# Counting words


def test_counting_words_learns_what_words_tell():
    words = {0: ("dull", "flat", "poor"), 1: ("fine", "great", "warm")}
    rng = np.random.default_rng(0)

    def part(count: int) -> tuple[Example, ...]:
        return tuple(
            Example((f"a {rng.choice(words[k])} and {rng.choice(words[k])} film",), (k,))
            for k in rng.integers(0, 2, count)
        )

    task = Task("films", "sentence", ("bad", "good"), part(60), part(20), part(40))
    counted = bag_of_words(task)
    assert counted.test.accuracy == 1.0
    assert "C = 0.1" in str(counted), "of equal strengths the weakest fit"
    assert majority_class(task).test.accuracy < 0.75


def test_of_a_pair_the_words_that_only_one_has_are_counted():
    task = pairs(120)
    assert bag_of_words(task).test.accuracy == 1.0, "equal sentences share all words"
    assert overlap(["no", "cat", "sat"], ["a", "cat"]) == (1 / 4, 1 / 3, 1 / 2, 1 / 5)
    assert overlap([], []) == (0.0, 0.0, 0.0, 0.0)


def test_of_a_word_its_neighbors_and_endings_are_counted():
    task = words(60)
    assert bag_of_words(task).test.accuracy > most_frequent_tag(task).test.accuracy, "neighbors tell of the topic"
    assert look(["Two", "cats"], 0) == {
        "word": "two", "before": "(start)", "after": "cats", "ending 1": "o", "ending 2": "wo", "ending 3": "two",
        "capital": True, "digit": False,
    }  # fmt: skip
    assert look(["of", "B2"], 1)["digit"] is True


def test_a_word_gets_its_most_frequent_label_and_a_new_word_the_usual_one():
    train_ = (Example(("a", "a", "a", "b", "b"), (0, 0, 1, 1, 1)), Example(("b",), (0,)))
    test = (Example(("a", "b", "new"), (0, 1, 0)),)
    found = most_frequent_tag(Task("t", "tokens", ("x", "y"), train_, test, test))
    assert found.test.confusion.tolist() == [[2, 0], [0, 1]]


# Comparison


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path, list[str]]:
    start, task = tiny(count=24)
    told: list[str] = []
    folder = tmp_path_factory.mktemp("compared") / "out"
    return compare(start, task, QUICK, seeds=2, out_dir=folder, report=told.append), folder, told


def test_both_networks_may_train_longer_and_validation_decides_how_long(comparison):
    found, folder, told = comparison
    for way, result in (("pre-trained", found.pretrained), ("random initialization", found.scratch)):
        assert set(found.tried[way]) == {2, 6}
        assert found.tried[way][result.config.epochs] == max(found.tried[way].values())
        assert result.interval(part="validation").mean == max(found.tried[way].values())
        assert result.from_scratch == (way == "random initialization")
    assert len(told) == 8
    assert told[4].startswith("random initialization, 2 epochs, seed 0")
    saved = json.loads((folder / "finetune.json").read_text())
    assert saved == json.loads(json.dumps(found.pretrained.to_dict())), "the network that counts is the one kept"


def test_the_number_of_epochs_that_is_best_on_the_validation_part_counts():
    start, task = tiny()
    found = compare(start, task, replace(QUICK, lr=3e-3, dropout=0.0), seeds=1, epochs=[30, 1])
    for way, result in (("pre-trained", found.pretrained), ("random initialization", found.scratch)):
        assert found.tried[way][30] > found.tried[way][1], "the validation part is in the training part here"
        assert result.config.epochs == 30


def test_differences_are_paired_by_seed(comparison):
    found = comparison[0]
    rows = found.rows()
    assert rows[0].difference is None
    for row in rows[1:]:
        by_seed = found.pretrained.values() - row.values
        assert row.difference.mean == pytest.approx(by_seed.mean())
        # 12.706: Student's distribution with one degree of freedom
        assert row.difference.half_width == pytest.approx(12.706 * by_seed.std(ddof=1) / 2**0.5, rel=1e-3)


def test_the_table_has_every_way_and_what_one_must_know(comparison):
    found, folder, _ = comparison
    table = str(found)
    for words in ("pre-trained", "random initialization", "TF-IDF", "majority class", "macro-F1", "paired by seed"):
        assert words in table
    assert "20 test texts alone leave an accuracy uncertain" in table
    assert (folder / "comparison.txt").read_text() == table + "\n"
    assert (folder / "comparison.png").stat().st_size > 1000
    data = json.loads((folder / "comparison.json").read_text())
    assert data == json.loads(json.dumps(found.to_dict()))
    assert (folder / "model.safetensors").is_file()


def test_at_least_one_number_of_epochs_must_be_tried():
    start, task = tiny()
    with pytest.raises(UserError, match="epochs must name at least one"):
        compare(start, task, QUICK, seeds=1, epochs=[])


def test_pictures_show_the_numbers(comparison):
    import matplotlib.pyplot as plt

    found = comparison[0]
    figure = found.plot("macro_f1")
    shown = {text.get_text() for text in figure.axes[0].texts}
    assert shown == {f"{100 * row.mean.mean:.1f}" for row in found.rows("macro_f1")}
    assert figure.axes[0].get_xlabel() == "test macro-F1 (%)"
    epochs = found.pretrained.plot()
    lines = epochs.axes[1].get_lines()
    drawn = [100 * e.accuracy for e in found.pretrained.outcomes[0].epochs]
    assert lines[0].get_ydata().tolist() == drawn
    assert lines[1].get_xdata() == [found.pretrained.outcomes[0].kept]
    confusion = found.pretrained.plot_confusion()
    counts = [int(text.get_text()) for text in confusion.axes[0].texts]
    assert counts == found.pretrained.best.test.confusion.ravel().tolist()
    plt.close("all")


# Real text


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the folder with real texts is not there")
def test_real_sentences_go_through_the_whole_of_it(tmp_path):
    from mlmkit.finetuning import load_classifier, load_task
    from mlmkit.tokenizer import train_wordpiece

    folder = DATA / "sst2"
    task = load_task(
        folder / "train.tsv",
        validation=folder / "dev.tsv",
        test=folder / "test.tsv",
        text="sentence",
        cache_dir=tmp_path,
    )
    task = task.subset(600)
    tokenizer = train_wordpiece([e.text[0] for e in task.train], 800)
    torch.manual_seed(0)
    model = BertForPreTraining(small_config(vocab_size=tokenizer.vocab_size))
    result = finetune((model, tokenizer), task, replace(FAST, epochs=1), seeds=2, out_dir=tmp_path / "out")
    assert result.best.test.count == 1821
    assert result.cut > 0, "the network reads 32 tokens, some reviews are longer"
    again = load_classifier(tmp_path / "out").predict([e.text[0] for e in task.test])
    right = np.mean([p.label == task.labels[e.labels[0]] for p, e in zip(again, task.test, strict=True)])
    assert right == pytest.approx(result.best.test.accuracy)

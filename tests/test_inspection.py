"""What is shown of a model is what the model does: attention, hidden states, embeddings, what enters the encoder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import numbered_tokenizer, random_batch, small_config, small_model, tiny_tokenizer

from mlmkit.checkpoint import save
from mlmkit.errors import UserError
from mlmkit.inspection import (
    AttentionMaps,
    attention_habits,
    attention_maps,
    embedding_neighbors,
    hidden_states,
    project_embeddings,
    untrained,
    what_enters,
    word_classes,
)
from mlmkit.inspection.attention import all_weights, attention_weights
from mlmkit.inspection.reading import clean, overheard
from mlmkit.language import language_named, tiny_language
from mlmkit.masking import IGNORE
from mlmkit.model import BertForPreTraining
from mlmkit.tokenizer import Tokenizer

A, B = "bade lomu kina", "zenpo sta lo vi [MASK] de"
FLOAT = 1e-5
"""Sums of some dozen float32 products differ in the last of seven digits, depending on their order."""


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny_tokenizer()


def model_for(tokenizer: Tokenizer, seed: int = 0, **changes: object) -> BertForPreTraining:
    return small_model(seed, vocab_size=tokenizer.vocab_size, **changes)


# Attention maps


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("b", [None, B], ids=["one sentence", "two"])
def test_maps_and_hidden_states_are_those_of_transformers(
    seed: int, b: str | None, tokenizer: Tokenizer, tmp_path: Path
):
    import transformers

    ours = model_for(tokenizer, seed)
    save(ours, tokenizer, tmp_path)
    theirs = transformers.BertForPreTraining.from_pretrained(tmp_path, attn_implementation="eager").eval()
    maps = attention_maps(ours, tokenizer, A, b)
    ids, segments = (torch.tensor([row]) for row in tokenizer.pair_ids(A, b))
    with torch.no_grad():
        output = theirs(ids, token_type_ids=segments, output_attentions=True, output_hidden_states=True)
    np.testing.assert_allclose(maps.weights, torch.cat(output.attentions).numpy(), atol=FLOAT)
    torch.testing.assert_close(
        hidden_states(ours, ids, segments), torch.stack(output.hidden_states), atol=FLOAT, rtol=FLOAT
    )


def test_each_row_of_a_map_is_a_distribution(tokenizer: Tokenizer):
    maps = attention_maps(model_for(tokenizer), tokenizer, A, B)
    L, heads, S = 2, 3, len(maps.tokens)
    assert maps.weights.shape == (L, heads, S, S)
    assert (maps.weights >= 0).all()
    np.testing.assert_allclose(maps.weights.sum(-1), 1, atol=1e-6)  # a softmax in float32
    assert maps.tokens[0] == "[CLS]"
    assert maps.tokens.count("[SEP]") == 2
    assert maps.token_type_ids == tuple(tokenizer.pair_ids(A, B)[1])


@pytest.mark.parametrize("seed", range(3))
def test_what_is_shown_is_what_the_layer_multiplied(seed: int):
    """weights @ values, put through the output projection, is what the layer really gave, padding or not."""
    model = small_model(seed)
    batch = random_batch(model.config, [11, 7, 4], seed)
    layers = [layer.attention for layer in model.encoder.layers]
    with torch.no_grad(), overheard(layers) as heard:
        model.encoder(batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
        for layer, ((x, bias, _), given) in zip(layers, heard, strict=True):
            weights, values = attention_weights(layer, x, bias)
            mixed = (weights @ values).transpose(1, 2).reshape(x.shape)
            torch.testing.assert_close(layer.out(mixed), given, atol=FLOAT, rtol=FLOAT)


def test_padding_is_never_read_and_changes_no_map(tokenizer: Tokenizer):
    model = small_model()
    batch = random_batch(model.config, [12, 7])
    arguments = batch["input_ids"], batch["token_type_ids"], batch["attention_mask"]
    weights = all_weights(model, *arguments)
    assert weights[:, 1, :, :, 7:].abs().max() == 0
    alone = all_weights(model, *(tensor[1:, :7] for tensor in arguments))
    np.testing.assert_allclose(weights[:, 1, :, :7, :7], alone[:, 0], atol=FLOAT)


def test_a_look_leaves_no_trace_in_the_model(tokenizer: Tokenizer):
    model = model_for(tokenizer, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    quiet = attention_maps(model, tokenizer, A).weights
    model.train()
    state = torch.get_rng_state()
    assert (attention_maps(model, tokenizer, A).weights == quiet).all(), "dropout was on"
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_ids_are_read_as_they_are(tokenizer: Tokenizer):
    model = model_for(tokenizer)
    ids, _ = tokenizer.pair_ids(A, B)
    by_text, by_ids = attention_maps(model, tokenizer, A, B), attention_maps(model, tokenizer, ids)
    assert by_ids.tokens == by_text.tokens
    assert by_ids.token_type_ids == by_text.token_type_ids
    assert (by_ids.weights == by_text.weights).all()
    bare = attention_maps(model, tokenizer, ids[1:3])
    assert bare.token_type_ids == (0, 0)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([], None, "1 to 32 tokens in this model"),
        ("ba de " * 30, None, "got 62"),
        ([2, 5, 3], "de", "ids are a whole sequence already"),
        ([2, 9999, 3], None, "ids go from 0 to"),
        ([2, -1, 3], None, "got -1 to 3"),
    ],
)
def test_what_cannot_be_read_is_refused(a: str | list[int], b: str | None, message: str, tokenizer: Tokenizer):
    for look in (attention_maps, what_enters):
        with pytest.raises(UserError, match=message):
            look(model_for(tokenizer), tokenizer, a, b)


# Habits of heads


def maps_of(*heads: np.ndarray) -> AttentionMaps:
    """One layer on `[CLS] a b [SEP]`."""
    return AttentionMaps(("[CLS]", "a", "b", "[SEP]"), (0, 0, 0, 0), np.stack(heads)[None].astype(float))


def test_a_head_that_reads_one_place_has_that_habit_and_no_entropy():
    to_previous, to_next = np.eye(4, k=-1), np.eye(4, k=1)
    to_previous[0, 3] = to_next[3, 0] = 1  # they have no such neighbor, and are not asked about it
    to_cls, to_sep = np.eye(4)[[0] * 4], np.eye(4)[[3] * 4]
    maps = maps_of(to_previous, to_next, np.eye(4), to_cls, to_sep, np.full((4, 4), 0.25))
    habits = maps.habits()
    assert habits.entropy[0].tolist() == pytest.approx([0, 0, 0, 0, 0, math.log(4)])
    assert habits.even_entropy == pytest.approx(math.log(4))
    expected = {
        "previous": [1, 0, 0, 1 / 3, 0, 1 / 4],  # of a, b and [SEP]; `to_cls` reads it from a
        "next": [0, 1, 0, 0, 1 / 3, 1 / 4],
        "itself": [0, 0, 1, 1 / 4, 1 / 4, 1 / 4],
        "[CLS]": [1 / 4, 1 / 4, 1 / 4, 1, 0, 1 / 4],
        "[SEP]": [1 / 4, 1 / 4, 1 / 4, 0, 1, 1 / 4],
    }
    assert {name: share[0].tolist() for name, share in habits.shares.items()} == {
        name: pytest.approx(share) for name, share in expected.items()
    }
    assert habits.even == pytest.approx(dict.fromkeys(expected, 1 / 4))


def test_the_sharpest_head_is_that_of_the_lowest_entropy():
    maps = maps_of(np.full((4, 4), 0.25), np.eye(4), np.full((4, 4), 0.25))
    assert maps.sharpest() == (0, 1)
    both = AttentionMaps(maps.tokens, maps.token_type_ids, np.concatenate([maps.weights[:, [0, 2, 2]], maps.weights]))
    assert both.sharpest() == (1, 1)


def test_habits_of_many_sequences_are_averaged_over_all_real_positions():
    tokenizer = numbered_tokenizer(40)
    model = small_model(vocab_size=tokenizer.vocab_size)
    lengths = [13, 6, 9]
    batch = random_batch(model.config, lengths)
    batch["input_ids"][:, 0] = tokenizer.cls_id
    batch["input_ids"][:, 3] = tokenizer.sep_id
    alone = [
        attention_maps(model, tokenizer, row[:n].tolist()) for row, n in zip(batch["input_ids"], lengths, strict=True)
    ]
    for row, maps in enumerate(alone):  # segments that the ids alone would not give
        one = {name: tensor[row : row + 1, : lengths[row]] for name, tensor in batch.items() if tensor.dim() == 2}
        weights = all_weights(model, one["input_ids"], one["token_type_ids"])[:, 0].numpy()
        alone[row] = AttentionMaps(maps.tokens, tuple(one["token_type_ids"][0].tolist()), weights)
    single = [maps.habits() for maps in alone]
    for batches in ([batch], [{n: t[:2] for n, t in batch.items()}, {n: t[2:] for n, t in batch.items()}]):
        together = attention_habits(model, tokenizer, batches)
        expected = np.average([h.entropy for h in single], axis=0, weights=lengths)
        np.testing.assert_allclose(together.entropy, expected, atol=FLOAT)
        assert together.even_entropy == pytest.approx(np.average(np.log(lengths), weights=lengths), abs=1e-6)
        for name in together.shares:
            weights = [n - 1 for n in lengths] if name in ("previous", "next") else lengths
            expected = np.average([h.shares[name] for h in single], axis=0, weights=weights)
            np.testing.assert_allclose(together.shares[name], expected, atol=FLOAT)


def test_habits_need_a_batch(tokenizer: Tokenizer):
    with pytest.raises(UserError, match="no batch"):
        attention_habits(model_for(tokenizer), tokenizer, [])


# Embeddings


def with_table(tokenizer: Tokenizer, table: np.ndarray) -> BertForPreTraining:
    """A model with these token embeddings (V, H)."""
    model = model_for(tokenizer, hidden_size=table.shape[1], num_attention_heads=1)
    with torch.no_grad():
        model.encoder.embeddings.token.weight.copy_(torch.from_numpy(table))
    return model


def test_neighbors_are_those_of_the_smallest_angle_whatever_their_length():
    tokenizer = numbered_tokenizer(6)
    table = np.random.default_rng(0).normal(size=(tokenizer.vocab_size, 8)) * 0.01
    mask = np.zeros(8)
    mask[0] = 3.0
    table[tokenizer.mask_id] = mask
    for word, angle, length in (("w2", 0.1, 0.5), ("w0", 0.4, 7.0), ("w5", 0.8, 2.0)):
        table[tokenizer.id(word)] = length * np.array([math.cos(angle), math.sin(angle), *[0] * 6])
    table[tokenizer.pad_id] = mask  # never a neighbor
    table[tokenizer.sep_id] = -mask
    found = embedding_neighbors(with_table(tokenizer, table), tokenizer, top=3)
    assert found.token == "[MASK]"
    assert found.tokens == ("w2", "w0", "w5")
    assert found.cosines == pytest.approx([math.cos(0.1), math.cos(0.4), math.cos(0.8)], abs=1e-6)  # float32 weights
    assert found.norm == pytest.approx(3.0)
    words = table[tokenizer.ordinary_ids]
    np.testing.assert_allclose(found.norms, np.linalg.norm(words, axis=1), atol=1e-6)
    np.testing.assert_allclose(found.distances, np.linalg.norm(words - words.mean(0), axis=1), atol=1e-6)
    assert found.distance == pytest.approx(np.linalg.norm(mask - words.mean(0)), abs=1e-6)
    everyone = embedding_neighbors(with_table(tokenizer, table), tokenizer, top=99)
    assert set(everyone.tokens) == {"w0", "w1", "w2", "w3", "w4", "w5", "[CLS]", "[SEP]", "[UNK]"}
    assert everyone.tokens[-1] == "[SEP]"
    assert everyone.cosines[-1] == pytest.approx(-1)


def test_a_word_has_neighbors_too_and_mask_may_be_one(tokenizer: Tokenizer):
    found = embedding_neighbors(model_for(tokenizer), tokenizer, "ba", top=500)
    assert "ba" not in found.tokens
    assert "[MASK]" in found.tokens
    assert list(found.cosines) == sorted(found.cosines, reverse=True)


def test_neighbors_of_what_is_no_token_are_refused(tokenizer: Tokenizer):
    with pytest.raises(UserError, match="not a single token"):
        embedding_neighbors(model_for(tokenizer), tokenizer, "qqq")
    with pytest.raises(UserError, match="at least 1, got 0"):
        embedding_neighbors(model_for(tokenizer), tokenizer, top=0)


def test_a_masked_position_receives_the_embedding_of_mask_its_place_and_its_segment(tokenizer: Tokenizer):
    model = model_for(tokenizer)
    parts = what_enters(model, tokenizer, f"[MASK] {A}", B)
    first, second = (i for i, token in enumerate(parts.tokens) if token == "[MASK]")
    weights = {name: p.detach().double().numpy() for name, p in model.encoder.embeddings.named_parameters()}
    for i, segment in ((first, 0), (second, 1)):
        np.testing.assert_array_equal(parts.token[i], weights["token.weight"][tokenizer.mask_id])
        np.testing.assert_array_equal(parts.position[i], weights["position.weight"][i])
        np.testing.assert_array_equal(parts.segment[i], weights["segment.weight"][segment])
    total = parts.token + parts.position + parts.segment
    normal = (total - total.mean(1, keepdims=True)) / total.std(1, keepdims=True)
    np.testing.assert_allclose(parts.vectors, normal * weights["norm.weight"] + weights["norm.bias"], atol=FLOAT)


def test_what_enters_is_what_the_first_layer_reads(tokenizer: Tokenizer):
    model = model_for(tokenizer)
    with torch.no_grad(), overheard([model.encoder.layers[0]]) as heard:
        model(*(torch.tensor([row]) for row in tokenizer.pair_ids(A, B)))
    np.testing.assert_allclose(what_enters(model, tokenizer, A, B).vectors, heard[0][0][0][0], atol=FLOAT)


def test_fresh_weights_are_drawn_from_the_seed_and_change_nothing_else(tokenizer: Tokenizer):
    model = model_for(tokenizer)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    one, again, other = untrained(model, 1), untrained(model, 1), untrained(model, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not one.training
    assert one.config == model.config
    weights = [net.encoder.layers[0].up.weight for net in (one, again, other, model)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], weights[3])


def test_clean_text_has_its_true_words_back():
    batch = random_batch(small_config(), [9, 5])
    true = torch.where(batch["labels"] == IGNORE, batch["input_ids"], batch["labels"])
    found = clean(batch)
    assert torch.equal(found["input_ids"], true)
    assert (found["labels"] == IGNORE).all()
    assert torch.equal(found["next_sentence_label"], batch["next_sentence_label"])
    assert (batch["labels"] != IGNORE).any(), "the batch itself was changed"


# Projection


def test_the_plane_is_that_of_principal_components():
    from sklearn.decomposition import PCA

    tokenizer = numbered_tokenizer(20)
    table = np.random.default_rng(1).normal(size=(tokenizer.vocab_size, 10)) * np.linspace(1, 3, 10)
    words = [f"w{i}" for i in range(15)]
    found = project_embeddings(with_table(tokenizer, table), tokenizer, words)
    vectors = table[[tokenizer.id(word) for word in words]].astype(np.float32)  # as the model holds them
    peer = PCA(2).fit(vectors)
    np.testing.assert_allclose(np.abs(found.coordinates), np.abs(peer.transform(vectors)), atol=1e-4)
    assert found.explained == pytest.approx(peer.explained_variance_ratio_.tolist(), abs=1e-6)
    assert found.tokens == tuple(words)
    assert found.groups is found.purity is found.chance is None
    farthest = np.abs(found.coordinates).argmax(0)
    assert (found.coordinates[farthest, [0, 1]] > 0).all()


def test_what_lies_in_a_plane_is_shown_without_loss():
    tokenizer = numbered_tokenizer(9)
    rng = np.random.default_rng(2)
    table = rng.normal(size=(tokenizer.vocab_size, 2)) @ np.linalg.qr(rng.normal(size=(6, 2)))[0].T + 5
    found = project_embeddings(with_table(tokenizer, table), tokenizer, [f"w{i}" for i in range(9)])
    assert sum(found.explained) == pytest.approx(1, abs=1e-6)
    vectors = table[tokenizer.ordinary_ids]

    def distances(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points[:, None] - points[None], axis=-1)

    np.testing.assert_allclose(distances(found.coordinates), distances(vectors), atol=FLOAT)


def test_purity_counts_the_words_whose_nearest_is_of_their_group():
    tokenizer = numbered_tokenizer(6)
    table = np.zeros((tokenizer.vocab_size, 4))
    angles = [0.0, 0.1, math.pi, math.pi + 0.3, math.pi + 0.35, 0.25]  # the last lies with the first two
    for i, angle in enumerate(angles):
        table[tokenizer.id(f"w{i}")] = [math.cos(angle), math.sin(angle), 0, 0]
    model = with_table(tokenizer, table)
    found = project_embeddings(model, tokenizer, {"east": ["w0", "w1"], "west": ["w2", "w3", "w4", "w5"]})
    assert found.groups == ("east", "east", "west", "west", "west", "west")
    assert found.purity is not None
    assert found.purity.value == pytest.approx(5 / 6)
    assert found.purity.count == 6
    assert found.chance == pytest.approx((2 * 1 / 5 + 4 * 3 / 5) / 6)


def test_without_a_choice_the_first_tokens_that_begin_a_word_are_shown(tokenizer: Tokenizer):
    tokens = project_embeddings(model_for(tokenizer), tokenizer).tokens
    assert 10 < len(tokens) <= 60
    assert all(token.isalpha() and len(token) > 2 for token in tokens)
    ids = [tokenizer.id(token) for token in tokens]
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ba", "de"], "three different words or more, each once; got 2"),
        (["ba", "de", "ba"], "got 3: \\['ba', 'de', 'ba'\\]"),
        (["ba", "de", "qqq"], "'qqq' is not a single token"),
    ],
)
def test_words_that_cannot_be_shown_are_refused(words: list[str], message: str, tokenizer: Tokenizer):
    for choice in (words, {"all": words}):
        with pytest.raises(UserError, match=message):
            project_embeddings(model_for(tokenizer), tokenizer, choice)


def test_the_classes_of_a_language_share_out_its_words():
    language = language_named("market")
    classes = word_classes(language)
    assert list(classes) == ["adjective", "noun", "verb", "adverb"]
    assert sorted(word for words in classes.values() for word in words) == sorted(language.words)
    assert "boat" in classes["noun"]
    assert word_classes(tiny_language()) == {"thing": ["cat", "bird"], "deed": ["sleeps", "sings"]}
    assert sum(map(len, word_classes(language_named("forest")).values())) == 100  # each word in one of its two

"""Denoising: what each corruption shows, what can be known of the original, and a decoder that comes near to it."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from helpers import small_config, within_binomial_bounds
from scipy.stats import chi2

from mlmkit.errors import UserError
from mlmkit.exact.inference import CLS_ID, FIRST_WORD, MASK_ID, PAD_ID, SEP_ID, joint_log_probability, posterior
from mlmkit.language import Language, draw_language, language_named, tiny_language
from mlmkit.masking import IGNORE
from mlmkit.objectives.corruptions import (
    Corruption,
    damage,
    delete_words,
    frame,
    hide,
    infill_words,
    mask_words,
    rotate_words,
    show_corruptions,
)
from mlmkit.objectives.decoder import EncoderDecoder, rebuild
from mlmkit.objectives.denoising import (
    DenoisingRun,
    compare_denoiser,
    draw_words,
    restoration_log_probability,
    token_losses,
    train_denoiser,
)
from mlmkit.objectives.training import SHORT_RUN, network

KINDS = ("mask", "infill", "delete")
EXACT = 1e-9
"""Sums of a few thousand float64 numbers, each right to 16 digits, and their logarithms."""


def words_of(*rows: str) -> np.ndarray:
    """Letters as words: a is the first, b the second, …"""
    return np.array([[FIRST_WORD + ord(letter) - ord("a") for letter in row] for row in rows])


def flags(*rows: str) -> np.ndarray:
    return np.array([[mark == "x" for mark in row] for row in rows])


def letters(ids: np.ndarray) -> list[str]:
    """The inverse of `words_of`: [MASK] is _, and [PAD] is left out."""
    sign = {MASK_ID: "_", PAD_ID: ""}
    return ["".join(sign.get(i, chr(ord("a") + i - FIRST_WORD)) for i in row) for row in np.asarray(ids).tolist()]


# --- what is shown -------------------------------------------------------------------------------------------


def test_masking_keeps_places_infilling_keeps_gaps_and_deletion_keeps_nothing() -> None:
    words, hidden = words_of("abcdef", "abcdef", "abcdef"), flags(".xx.x.", "xxxxxx", "......")
    assert letters(mask_words(words, hidden)) == ["a__d_f", "______", "abcdef"]
    assert letters(infill_words(words, hidden)) == ["a_d_f", "_", "abcdef"]
    assert letters(delete_words(words, hidden)) == ["adf", "", "abcdef"]
    assert delete_words(words[:1], hidden[:1]).shape == (1, 3), "no place-holder, not even at the end"


def test_an_empty_hole_hides_nothing_and_never_touches_another_one() -> None:
    words, hidden = words_of("abcd", "abcd"), flags(".xx.", "....")
    everywhere = np.ones((2, 5), dtype=bool)
    assert letters(infill_words(words, hidden, everywhere)) == ["_a_d_", "_a_b_c_d_"]


def test_rotation_only_moves_the_beginning() -> None:
    assert letters(rotate_words(words_of("abcd", "abcd"), np.array([0, 3]))) == ["abcd", "dabc"]


@pytest.mark.parametrize("seed", range(3))
def test_the_same_hidden_words_show_less_and_less(seed: int) -> None:
    """From the masked sentence follows the infilled one, and from that the deleted one, without knowing the words."""
    rng = np.random.default_rng(seed)
    words = rng.integers(FIRST_WORD, 20, (50, 9))
    hidden = hide(words.shape, Corruption(rate=0.4), rng)
    masked, infilled, deleted = (f(words, hidden) for f in (mask_words, infill_words, delete_words))
    for m, i, d in zip(letters(masked), letters(infilled), letters(deleted), strict=True):
        merged = "".join(sign for sign, group in itertools.groupby(m) for _ in (group if sign != "_" else [0]))
        assert merged == i
        assert i.replace("_", "") == d


def test_one_sentence_is_shown_under_each_corruption() -> None:
    sentence = "the early bird catches the worm"
    for seed in range(20):
        shown = show_corruptions(sentence, Corruption(rate=0.4), np.random.default_rng(seed))
        assert list(shown) == ["mask", "infill", "delete", "rotate"]
        visible = [word for word in shown["mask"].split() if word != "[MASK]"]
        assert len(shown["mask"].split()) == 6
        assert shown["delete"].split() == visible
        assert [word for word in shown["infill"].split() if word != "[MASK]"] == visible
        assert "[MASK] [MASK]" not in shown["infill"]
        assert shown["rotate"] in f"{sentence} {sentence}"
    with pytest.raises(UserError, match="at least one word"):
        show_corruptions("  ", Corruption(), np.random.default_rng(0))


def test_the_frame_ends_each_sentence_where_its_words_end() -> None:
    framed = frame(np.array([[7, MASK_ID, PAD_ID], [PAD_ID, PAD_ID, PAD_ID], [7, 8, 9]]))
    assert framed.tolist() == [[CLS_ID, 7, MASK_ID, SEP_ID, 0], [CLS_ID, SEP_ID, 0, 0, 0], [CLS_ID, 7, 8, 9, SEP_ID]]


# --- the law -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_length", [None, 1.0, 1.7, 3.0])
@pytest.mark.parametrize("rate", [0.15, 0.4])
def test_each_word_is_hidden_at_the_rate_and_runs_have_their_length(rate: float, run_length: float | None) -> None:
    corruption = Corruption(rate=rate, run_length=run_length)
    hidden = hide((20_000, 8), corruption, np.random.default_rng(0))
    for i in range(8):
        assert within_binomial_bounds(int(hidden[:, i].sum()), 20_000, rate)
    after_hidden = hidden[:, 1:][hidden[:, :-1]]
    goes_on = rate if run_length is None else 1 - 1 / run_length
    assert within_binomial_bounds(int(after_hidden.sum()), after_hidden.size, goes_on)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "swap"}, "kind must be one of mask, infill, delete, rotate, got 'swap'"),
        ({"rate": 1.0}, "rate must be at least 0 and less than 1, got 1.0"),
        ({"rate": -0.1}, "rate must be"),
        ({"empty": 1.0}, "empty must be at least 0 and less than 1, got 1.0"),
        ({"empty": -0.1}, "empty must be"),
        ({"run_length": 0.5}, "run_length must be at least 1 to hide the share 0.3, got 0.5"),
        ({"rate": 0.75, "run_length": 2.0}, "run_length must be at least 3 to hide the share 0.75, got 2"),
    ],
)
def test_a_corruption_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Corruption(**changes)


# --- everything by enumeration -------------------------------------------------------------------------------
# Nothing below shares code with the library: sentences are strings, laws are dictionaries.


def sentence_law(language: Language) -> dict[str, float]:
    """Pr(x) of every first sentence, by summing over topics and classes."""
    L, N, C = language.lengths[0], len(language.words), len(language.classes)
    law: dict[str, float] = defaultdict(float)
    for k, prior in enumerate(language.topic):
        for classes in itertools.product(range(C), repeat=L):
            path = prior * language.start[classes[0]]
            for c, d in itertools.pairwise(classes):
                path *= language.transition[c, d]
            for words in itertools.product(range(N), repeat=L):
                p = path * math.prod(language.emission[k, c, n] for c, n in zip(classes, words, strict=True))
                law["".join(chr(ord("a") + n) for n in words)] += p
    return law


def damage_law(x: str, corruption: Corruption) -> dict[str, float]:
    """Pr(x̃ | x), by summing over what is hidden and over empty holes."""
    L, law = len(x), defaultdict(float)
    if corruption.kind == "rotate":
        for s in range(L):
            law[x[s:] + x[:s]] += 1 / L
        return law
    rate = corruption.rate
    stays = rate if corruption.run_length is None else 1 - 1 / corruption.run_length
    begins = rate * (1 - stays) / (1 - rate)
    for hidden in itertools.product([False, True], repeat=L):
        p = rate if hidden[0] else 1 - rate
        for before, now in itertools.pairwise(hidden):
            chance = stays if before else begins
            p *= chance if now else 1 - chance
        if corruption.kind == "mask":
            law["".join("_" if h else word for word, h in zip(x, hidden, strict=True))] += p
        elif corruption.kind == "delete":
            law["".join(word for word, h in zip(x, hidden, strict=True) if not h)] += p
        else:
            padded = [False, *hidden, False]
            free = [i for i in range(L + 1) if not padded[i] and not padded[i + 1]]
            for empty in itertools.product([False, True], repeat=len(free)):
                q = math.prod(corruption.empty if e else 1 - corruption.empty for e in empty)
                holes = {i for i, e in zip(free, empty, strict=True) if e}
                holes |= {i for i in range(L) if hidden[i] and not padded[i]}
                kept = [x[i] if i < L and not hidden[i] else "" for i in range(L + 1)]
                text = "".join("_" * (i in holes) + word for i, word in enumerate(kept))
                law[text] += p * q
    return law


def joint_law(language: Language, corruption: Corruption) -> dict[tuple[str, str], float]:
    """Pr(x, x̃) where it is not 0."""
    return {
        (x, seen): p * q
        for x, p in sentence_law(language).items()
        for seen, q in damage_law(x, corruption).items()
        if p * q > 0
    }


def conditional_entropy(joint: dict[tuple[str, str], float]) -> float:
    evidence: dict[str, float] = defaultdict(float)
    for (_, seen), p in joint.items():
        evidence[seen] += p
    return -sum(p * math.log(p / evidence[seen]) for (_, seen), p in joint.items())


def ids(rows: list[str]) -> np.ndarray:
    """Damaged sentences as ids, padded."""
    sign = {"_": MASK_ID}
    width = max(map(len, rows))
    numbers = [[sign.get(c, FIRST_WORD + ord(c) - ord("a")) for c in row] for row in rows]
    return np.array([row + [PAD_ID] * (width - len(row)) for row in numbers], dtype=np.int64).reshape(len(rows), width)


def random_language(rng: np.random.Generator, length: int) -> Language:
    """A small one, some with zeros in their tables."""
    K, C, N = rng.integers(1, 3), rng.integers(1, 3), rng.integers(2, 4)

    def rows(*shape: int) -> np.ndarray:
        p = rng.dirichlet(np.ones(shape[-1]), shape[:-1])
        p = np.where(rng.random(p.shape) < 0.15, 0.0, p) + 1e-12 * (p == p.max(-1, keepdims=True))
        return p / p.sum(-1, keepdims=True)

    names = tuple("abcdef")
    return Language(
        "random", names[:N], names[:K], names[:C], rows(K), rows(C), rows(C, C), rows(K, C, N), lengths=(length, 1)
    )


def random_corruption(kind: str, rng: np.random.Generator) -> Corruption:
    rate = float(rng.choice([0.15, 0.3, 0.5]))
    run_length = rng.choice([None, 1.0, 2.5])
    return Corruption(kind, rate, run_length, float(rng.choice([0.0, 0.3])))


@pytest.mark.parametrize("kind", ["mask", "infill", "delete", "rotate"])
def test_the_exact_answer_is_that_of_enumeration(kind: str) -> None:
    """On 50 random languages for each kind: every sentence with everything it may become."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        language, corruption = random_language(rng, int(rng.integers(1, 4))), random_corruption(kind, rng)
        joint = joint_law(language, corruption)
        evidence: dict[str, float] = defaultdict(float)
        for (_, seen), p in joint.items():
            evidence[seen] += p
        wanted = [math.log(p / evidence[seen]) for (_, seen), p in joint.items()]
        whole, damaged = (ids(list(texts)) for texts in zip(*joint, strict=True))
        found = restoration_log_probability(language, whole, damaged, corruption)
        np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=EXACT)


@pytest.mark.parametrize("kind", ["mask", "infill", "delete", "rotate"])
def test_damage_is_drawn_from_the_law_that_is_solved(kind: str) -> None:
    corruption = Corruption(kind, 0.3, 2.0, 0.2)
    law = damage_law("abca", corruption)
    count = 20_000
    drawn = letters(damage(np.repeat(words_of("abca"), count, axis=0), corruption, np.random.default_rng(0)))
    assert set(drawn) <= set(law)
    expected = np.array([count * p for p in law.values()])
    seen = np.array([drawn.count(text) for text in law])
    often = expected >= 5  # where the χ² law holds
    statistic = ((seen - expected)[often] ** 2 / expected[often]).sum()
    assert statistic < chi2.isf(1e-6, often.sum()), "one test in a million fails by chance"


@pytest.mark.parametrize("seed", range(5))
def test_the_less_is_shown_the_less_is_known(seed: int) -> None:
    """H(x | masked) ≤ H(x | infilled) ≤ H(x | infilled, with empty holes) ≤ H(x | deleted), exactly."""
    rng = np.random.default_rng(seed)
    language, law = random_language(rng, 3), Corruption(rate=0.4, run_length=rng.choice([None, 2.0]))
    ways = [law, replace(law, kind="infill"), replace(law, kind="infill", empty=0.3), replace(law, kind="delete")]
    entropies = [conditional_entropy(joint_law(language, way)) for way in ways]
    assert all(less <= more + EXACT for less, more in itertools.pairwise(entropies)), entropies


def test_deletion_is_harder_only_where_the_order_of_classes_does_not_tell_the_place() -> None:
    """One word of "cat sleeps" is gone: a thing comes before a deed, so the other word shows where it stood."""
    ordered = tiny_language()
    free = replace(ordered, start=np.array([0.5, 0.5]), transition=np.full((2, 2), 0.5))
    for language, harder in ((ordered, False), (free, True)):
        masked, deleted = (conditional_entropy(joint_law(language, Corruption(kind))) for kind in ("mask", "delete"))
        assert bool(deleted > masked + 0.01) == harder


def test_a_sentence_with_nothing_hidden_is_certain() -> None:
    language = language_named("market")
    words = draw_words(language, 20, np.random.default_rng(0))
    for kind in KINDS:
        found = restoration_log_probability(language, words, words, Corruption(kind, rate=0.0))
        np.testing.assert_allclose(found.numpy(), 0, atol=EXACT)


def test_under_masking_the_floor_is_the_joint_of_the_masked_words() -> None:
    """And not the product of the words one by one, which is what BERT predicts: the joint is easier in the mean."""
    language, corruption = language_named("market"), Corruption("mask", 0.3)
    rng = np.random.default_rng(0)
    words = draw_words(language, 2000, rng)
    damaged = damage(words, corruption, rng)
    masked = frame(damaged)
    labels = torch.where(masked == MASK_ID, frame(words), IGNORE)
    found = restoration_log_probability(language, words, damaged, corruption)
    torch.testing.assert_close(found, joint_log_probability(language, masked, labels, policy=None), rtol=0, atol=EXACT)

    law = posterior(language, masked, policy=None)  # (B, S, V)
    alone = law.gather(2, labels.clamp(min=0)[..., None])[..., 0].log()
    gain = found - torch.where(labels == IGNORE, 0.0, alone).sum(1)
    error = gain.std() / len(gain) ** 0.5
    assert gain.mean() > 3 * error


def test_what_cannot_be_is_refused() -> None:
    words = words_of("ac")  # "cat sleeps"
    backwards = words_of("ca")
    for kind in ("mask", "rotate"):
        with pytest.raises(UserError, match="row 0 cannot be a sentence of 'tiny' damaged by"):
            restoration_log_probability(tiny_language(), words, words_of("aa"), Corruption(kind))
    turned = restoration_log_probability(tiny_language(), words, backwards, Corruption("rotate"))
    assert turned.item() == pytest.approx(0, abs=EXACT), "only one of the two orders is a sentence"
    other = restoration_log_probability(tiny_language(), words, words_of("bc"), Corruption("mask"))
    assert other.item() == -math.inf, "x̃ is possible, but not from this x"


# --- the network ---------------------------------------------------------------------------------------------


def small_decoder(seed: int = 0) -> EncoderDecoder:
    torch.manual_seed(seed)
    return EncoderDecoder(small_config(initializer_range=0.3)).eval()


DAMAGED = torch.tensor([[CLS_ID, 7, MASK_ID, 9, SEP_ID], [CLS_ID, 8, SEP_ID, 0, 0]])
WRITTEN = torch.tensor([[CLS_ID, 7, 8, 9, 10, 11], [CLS_ID, 8, 7, 12, 6, 5]])

SAME = {"rtol": 1e-5, "atol": 1e-5}
"""The same fp32 sums over rows of another length: a few units of 1.2·10⁻⁷ for each layer."""


def test_a_word_is_predicted_from_the_words_before_it_and_from_the_whole_damaged_sentence() -> None:
    model = small_decoder()
    logits = model(DAMAGED, WRITTEN)  # (2, 6, V)
    assert logits.shape == (2, 6, 50)
    for t in range(1, 6):
        changed = WRITTEN.clone()
        changed[:, t] = 40
        moved = (model(DAMAGED, changed) - logits).abs().amax((0, 2)) > 1e-4  # (6,)
        assert not moved[:t].any(), "a later word is visible"
        assert moved[t:].all()
    for s in range(5):
        changed = DAMAGED.clone()
        changed[0, s] = 40
        assert ((model(changed, WRITTEN) - logits).abs().amax(2)[0] > 1e-4).all(), "all of x̃ is read at every step"


def test_padding_of_the_damaged_sentence_changes_nothing() -> None:
    model = small_decoder()
    longer = torch.nn.functional.pad(DAMAGED, (0, 7))
    torch.testing.assert_close(model(longer, WRITTEN), model(DAMAGED, WRITTEN), **SAME)
    torch.testing.assert_close(model(DAMAGED[1:, :3], WRITTEN[1:]), model(DAMAGED, WRITTEN)[1:], **SAME)
    torch.testing.assert_close(model(longer, WRITTEN[:, :2]), model(DAMAGED, WRITTEN)[:, :2], **SAME)


def test_one_table_of_words_serves_encoder_decoder_and_output() -> None:
    model = small_decoder()
    assert model.head.decoder.weight is model.encoder.embeddings.token.weight
    assert not model.encoder.embeddings.token.weight[PAD_ID].any()
    assert sum("token" in name for name, _ in model.named_parameters()) == 1
    assert all(layer.down.bias.abs().sum() == 0 for layer in model.layers), "biases start at 0"


def test_the_decoder_tells_its_own_words_from_those_of_the_encoder() -> None:
    """Both are embedded by the same tables, but in another segment."""
    model = small_decoder()
    before = model(DAMAGED, WRITTEN)
    with torch.no_grad():
        model.encoder.embeddings.segment.weight[1] += torch.randn(24)
    assert not torch.allclose(model(DAMAGED, WRITTEN), before)
    assert torch.equal(model.encoder(DAMAGED), model.encoder(DAMAGED, torch.zeros_like(DAMAGED)))


def test_teacher_forcing_adds_up_to_the_chain_rule() -> None:
    """Σ_t of one pass equals writing the sentence word by word, [SEP] included."""
    model = small_decoder()
    words, damaged = words_of("abcd", "dcba"), np.array([[5, MASK_ID], [7, PAD_ID]])
    text = frame(words)
    total = torch.zeros(2)
    for t in range(1, text.shape[1]):
        log_q = model(frame(damaged), text[:, :t])[:, -1].log_softmax(-1)
        total -= log_q.gather(1, text[:, t : t + 1])[:, 0]
    losses = token_losses(model, words, damaged)
    assert losses.shape == (2, 5), "four words and [SEP]"
    torch.testing.assert_close(losses.sum(1), total, **SAME)


def test_rebuilding_takes_the_best_word_at_each_place_and_ends_at_sep() -> None:
    model = small_decoder()
    text = rebuild(model, DAMAGED, 6)
    assert text.shape == (2, 6)
    for row in range(2):
        written = [CLS_ID]
        for _ in range(6):
            word = model(DAMAGED[row : row + 1], torch.tensor([written]))[0, -1].argmax().item()
            if word == SEP_ID:
                break
            written.append(word)
        assert text[row].tolist() == written[1:] + [PAD_ID] * (7 - len(written))
    with torch.no_grad():
        model.head.decoder.bias[SEP_ID] = 1e6
    assert rebuild(model, DAMAGED, 6).tolist() == [[PAD_ID] * 6] * 2


# --- training ------------------------------------------------------------------------------------------------


@cache
def six_words() -> Language:
    """Twelve words in three classes, two topics, sentences of six words: a network learns it in seconds."""
    groups = [list("abcd"), list("efgh"), list("ijkl")]
    return draw_language(3, groups, topics=("one", "other"), lengths=(6, 6))


def test_on_the_pencil_language_the_denoiser_reaches_its_floor() -> None:
    short = replace(SHORT_RUN, max_steps=150, batch_size=128, warmup_steps=20, eval_every=150)
    language = tiny_language()
    run = train_denoiser(language, Corruption("delete"), config=network(language, layers=1, hidden=16), train=short)
    # 150 updates leave a little to learn; twenty times as much, 1.2 nats, separates the start from the floor
    assert -3 * run.result.standard_error < run.result.gap < 0.05
    assert [point.step for point in run.curve] == [150]


def test_a_run_follows_from_its_seed_and_the_seed_from_nothing_else() -> None:
    short = replace(SHORT_RUN, max_steps=3, batch_size=8, warmup_steps=1, precision="fp32")
    size = network(tiny_language(), layers=1, hidden=8, heads=2)

    def losses(seed: int) -> float:
        torch.manual_seed(int(np.random.default_rng().integers(1000)))
        train = replace(short, seed=seed)
        return train_denoiser(tiny_language(), Corruption(), config=size, train=train, questions=8).curve[-1].loss

    assert losses(1) == losses(1) != losses(2)


TRAINING = {"mask": (400, 0.02), "infill": (600, 0.03), "delete": (600, 0.08)}
"""Updates, and nats per token above the floor that may be left: about twice what was measured. The first losses are
above 2; deletion takes longest, since the decoder must find out where in the sentence it is."""


@cache
def trained(kind: str) -> DenoisingRun:
    language = six_words()
    steps = TRAINING[kind][0]
    train = replace(SHORT_RUN, max_steps=steps, batch_size=128, warmup_steps=50)
    return train_denoiser(language, Corruption(kind), config=network(language, hidden=48), train=train)


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRAINING)
def test_a_trained_denoiser_stays_above_its_floor_and_comes_near(kind: str) -> None:
    result = trained(kind).result
    assert result.gap > -3 * result.standard_error
    assert result.gap < TRAINING[kind][1]


@pytest.mark.slow
def test_trained_or_exact_deletion_is_harder_than_infilling_and_infilling_than_masking() -> None:
    """All three hide the same words of the same sentences; 0.01 nats are ten standard errors."""
    results = [trained(kind).result for kind in KINDS]
    for easier, harder in itertools.pairwise(results):
        assert harder.floor > easier.floor + 0.01
        assert harder.loss > easier.loss + 0.01


@pytest.mark.slow
def test_visible_words_are_copied_and_hidden_ones_are_not_all_found() -> None:
    rng = np.random.default_rng(5)
    words = draw_words(six_words(), 1000, rng)
    damaged = damage(words, Corruption("mask"), rng)
    written = rebuild(trained("mask").model, frame(damaged), 8).numpy()
    assert (written[:, 6:] == PAD_ID).all(), "[SEP] comes after the sixth word"
    right = written[:, :6] == words
    visible = damaged != MASK_ID
    assert right[visible].mean() > 0.999
    assert 1 / 12 < right[~visible].mean() < 0.9


@pytest.mark.slow
def test_after_deletion_the_sentence_has_its_length_again() -> None:
    rng = np.random.default_rng(6)
    words = draw_words(six_words(), 500, rng)
    damaged = damage(words, Corruption("delete"), rng)
    written = rebuild(trained("delete").model, frame(damaged), 8).numpy()
    assert ((written != PAD_ID).sum(1) == 6).mean() > 0.99


@pytest.mark.slow
def test_a_denoiser_that_learned_to_fill_gaps_does_not_see_that_words_are_gone() -> None:
    """Trained on place-holders, read on deleted words: the mismatch costs far more than the harder question does."""
    language, model = six_words(), trained("mask").model
    result = compare_denoiser(language, model, Corruption("delete"), 1000, np.random.default_rng(7))
    assert result.gap > 10 * trained("delete").result.gap

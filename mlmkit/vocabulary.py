"""More words for a vocabulary that was learned on other text, so that a trained model can go on with a new domain.

A general vocabulary cuts the words of a domain into many pieces: each costs a position, and masking one of them asks
less than masking the word. New words get an embedding from the pieces that stood for them until now.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import tokenizers
import torch

from mlmkit.errors import UserError
from mlmkit.model import BertForPreTraining
from mlmkit.tokenizer import Tokenizer

_ROWS = ("encoder.embeddings.token.weight", "mlm.decoder.weight", "mlm.decoder.bias")
"""Weights with a row for each token."""


def frequent_words(tokenizer: Tokenizer, texts: Iterable[str], count: int, min_count: int = 5) -> list[str]:
    """Find the words whose own token would save the most positions in a text.

    A word that occurs n times and is cut into p pieces would save n · (p − 1) of them.

    Args:
        tokenizer: cuts the words.
        texts: of the domain; training text only, a vocabulary that has seen held-out text is a leak.
        count: how many words at most.
        min_count: a rarer word is left out: its embedding would hardly be trained.

    Returns:
        Words as the tokenizer normalizes them, the most saving first; equally saving ones in alphabetical order.
    """
    backend = tokenizer.backend
    counts: Counter[str] = Counter()
    for text in texts:
        normalized = backend.normalizer.normalize_str(text) if backend.normalizer else text
        counts.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalized))
    words = sorted(word for word, n in counts.items() if n >= min_count)
    pieces = tokenizer.encode_batch(words)
    saved = {
        word: counts[word] * (len(ids) - 1)
        for word, ids in zip(words, pieces, strict=True)
        if len(ids) > 1 and tokenizer.unk_id not in ids
    }
    return sorted(saved, key=lambda word: -saved[word])[:count]


def add_words(tokenizer: Tokenizer, words: Sequence[str]) -> Tokenizer:
    """Give words a token of their own, after all others; what the old tokens mean does not change.

    Other words that begin with a new one are cut differently too, since WordPiece takes the longest token that fits:
    with `tensor`, `tensors` is `tensor ##s`.

    Raises:
        UserError: a word is already a token, stands there twice, or is not a single word for this tokenizer.

    >>> from mlmkit.tokenizer import word_tokenizer
    >>> add_words(word_tokenizer(["cat", "mat"]), ["cats"]).encode("cats mat cat")
    [7, 6, 5]
    """
    description = json.loads(tokenizer.backend.to_str())
    vocabulary: dict[str, int] = description["model"]["vocab"]
    for number, word in enumerate(words, start=tokenizer.vocab_size):
        if word in vocabulary:
            raise UserError(f"{word!r} is already a token: leave it out of the new words")
        vocabulary[word] = number
    extended = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(description)))
    for word in words:
        if extended.encode(word) != [vocabulary[word]]:
            raise UserError(
                f"{word!r} cannot be a token: this tokenizer reads it as {tokenizer.pieces(word)}; give single words, "
                "in lower case if the vocabulary is"
            )
    return extended


def add_embeddings(model: BertForPreTraining, before: Tokenizer, after: Tokenizer) -> BertForPreTraining:
    """Copy a model and give it rows for the tokens that `after` has and `before` has not.

    The embedding of a new word, and its row and bias in the decoder, are the means of those of its pieces. So its
    score is the mean of their scores, and its probability at most the mean of their probabilities (Jensen's
    inequality): the new words begin as likely as their pieces, and take little from the others.

    Args:
        model: trained with `before`; not changed.
        before: its tokenizer.
        after: `add_words` of it.

    Returns:
        A model with max(V of `after`, rows of the old model) rows.
    """
    old_size = model.config.vocab_size
    config = replace(model.config, vocab_size=max(after.vocab_size, old_size))
    with torch.random.fork_rng(devices=[]):
        extended = BertForPreTraining(config).train(model.training)
    new = range(before.vocab_size, after.vocab_size)
    pieces = before.encode_batch(after.tokens(new))
    weights = model.state_dict()
    for name, value in extended.state_dict().items():
        if name not in _ROWS:
            value.copy_(weights[name])
            continue
        value[:old_size] = weights[name]
        for row, ids in zip(new, pieces, strict=True):
            value[row] = weights[name][ids].mean(0)
    return extended

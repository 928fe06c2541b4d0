"""Text ↔ ids: WordPiece, trained from scratch with `tokenizers` and saved so that `transformers` opens it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from mlmkit.errors import UserError

PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUATION = "##"
"""Prefix of a piece that continues a word."""


class Tokenizer:
    """A WordPiece tokenizer and the facts about its vocabulary that masking and batching need.

    Args:
        backend: a `tokenizers.Tokenizer` whose vocabulary holds the five special tokens.

    Raises:
        UserError: a special token is missing.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        missing = [token for token in SPECIAL_TOKENS if backend.token_to_id(token) is None]
        if missing:
            raise UserError(f"the tokenizer has no {', '.join(missing)}; BERT needs {' '.join(SPECIAL_TOKENS)}")
        self.backend = backend
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = map(self.id, SPECIAL_TOKENS)

    @property
    def vocab_size(self) -> int:
        """Number V of tokens, the special ones included."""
        return self.backend.get_vocab_size()

    @cached_property
    def special_ids(self) -> NDArray[np.int64]:
        """Ids that are never selected, predicted or used as a replacement, ascending."""
        return np.sort([self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id])

    @cached_property
    def ordinary_ids(self) -> NDArray[np.int64]:
        """All other ids, ascending; BERT's reserved [unused…] entries are left out."""
        special = set(self.special_ids.tolist())
        vocabulary = self.backend.get_vocab()
        return np.sort([i for t, i in vocabulary.items() if i not in special and not t.startswith("[unused")])

    @cached_property
    def is_continuation(self) -> NDArray[np.bool_]:
        """True for each id whose piece continues a word (V,)."""
        flags = np.zeros(self.vocab_size, dtype=bool)
        for token, index in self.backend.get_vocab().items():
            flags[index] = token.startswith(CONTINUATION)
        return flags

    def id(self, token: str) -> int:
        """Look up one token.

        Raises:
            UserError: it is not in the vocabulary.
        """
        index = self.backend.token_to_id(token)
        if index is None:
            raise UserError(f"{token!r} is not a single token of this vocabulary; its pieces are {self.pieces(token)}")
        return int(index)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without [CLS] and [SEP]."""
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of several texts, without [CLS] and [SEP]; runs in parallel."""
        return [e.ids for e in self.backend.encode_batch_fast(list(texts), add_special_tokens=False)]

    def pair_ids(self, a: str, b: str | None = None) -> tuple[list[int], list[int]]:
        """Lay out `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`; the first [SEP] belongs to segment 0.

        Returns:
            input_ids and token_type_ids, of the same length.
        """
        encoding = self.backend.encode(a, b, add_special_tokens=True)
        return encoding.ids, encoding.type_ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of some ids."""
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Pieces of some ids."""
        return [self.backend.id_to_token(int(i)) or UNK for i in ids]

    def pieces(self, text: str) -> list[str]:
        """Pieces of a text."""
        return self.backend.encode(text, add_special_tokens=False).tokens

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json` and `vocab.txt`; `transformers.AutoTokenizer` opens them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        by_id = sorted(self.backend.get_vocab().items(), key=lambda item: item[1])
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in by_id), encoding="utf-8")
        normalizer = json.loads(self.backend.to_str())["normalizer"] or {}
        settings = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": bool(normalizer.get("lowercase", False)),
            "model_max_length": 512,
            "pad_token": PAD,
            "unk_token": UNK,
            "cls_token": CLS,
            "sep_token": SEP,
            "mask_token": MASK,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        scratch = folder / f".tokenizer.json.{os.getpid()}"
        self.backend.save(str(scratch))
        os.replace(scratch, folder / "tokenizer.json")  # last and in one step: where it stands, all is there


def train_wordpiece(texts: Iterable[str], vocab_size: int = 4096, lowercase: bool = True) -> Tokenizer:
    """Learn a WordPiece vocabulary (Devlin et al. 2019 §3; algorithm of `tokenizers`).

    The same texts always give the same vocabulary, in the order: special tokens, characters, continuing
    characters, longer pieces as they were learned.

    Args:
        texts: the training part only; a vocabulary learned from held-out text is a leak. It is read twice: give
            an iterable that starts anew each time; an iterator is first gathered in memory.
        vocab_size: largest size, special tokens included; a small corpus gives fewer. At most a quarter are
            single characters, the most frequent ones.
        lowercase: fold case and strip accents, as "uncased" BERT.

    Raises:
        UserError: `vocab_size` leaves no room beside the special tokens, or there is no text.
    """
    if vocab_size <= len(SPECIAL_TOKENS):
        raise UserError(f"data.vocab_size must leave room beside the 5 special tokens, got {vocab_size}")
    if isinstance(texts, Iterator):
        texts = list(texts)
    backend = _backend(SPECIAL_TOKENS, lowercase)
    alphabet = _alphabet(texts, backend, limit=max(1, min(1000, vocab_size // 4)))
    if not alphabet:
        raise UserError("no vocabulary can be learned: the training text is empty")
    # The library numbers continuing characters in an order that changes from run to run, and breaks ties between
    # equally frequent merges by these numbers. Named beforehand, they have fixed numbers.
    characters = [*alphabet, *(CONTINUATION + c for c in alphabet if _continues(c, backend))]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        special_tokens=[*SPECIAL_TOKENS, *characters],
        continuing_subword_prefix=CONTINUATION,
        show_progress=False,
    )
    backend.train_from_iterator(_in_lists(texts), trainer)
    learned = backend.get_vocab()
    return Tokenizer(_backend(sorted(learned, key=learned.__getitem__)[:vocab_size], lowercase))


def word_tokenizer(words: Sequence[str]) -> Tokenizer:
    """Build a tokenizer of a closed vocabulary: every word is one token, after the special tokens, in order.

    Args:
        words: different, lower case, one piece each for BERT's pre-tokenizer (letters only).

    Raises:
        UserError: a word is no single token, or stands there twice.

    >>> word_tokenizer(["cat", "mat"]).encode("mat cat")
    [6, 5]
    """
    tokenizer = Tokenizer(_backend([*SPECIAL_TOKENS, *words], lowercase=True))
    for number, word in enumerate(words, start=len(SPECIAL_TOKENS)):
        if tokenizer.encode(word) != [number]:
            raise UserError(f"{word!r} cannot be a word of a closed vocabulary: it is repeated, or no single word")
    return tokenizer


def _backend(vocabulary: Sequence[str], lowercase: bool) -> tokenizers.Tokenizer:
    """BERT's way of cutting words, around a vocabulary that begins with the special tokens."""
    ids = {token: index for index, token in enumerate(vocabulary)}
    backend = tokenizers.Tokenizer(models.WordPiece(ids, unk_token=UNK, max_input_chars_per_word=100))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=lowercase)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=CONTINUATION)
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    backend.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(token, ids[token]) for token in (CLS, SEP)],
    )
    return backend


def _alphabet(texts: Iterable[str], backend: tokenizers.Tokenizer, limit: int) -> list[str]:
    """Find the `limit` most frequent characters of the normalized texts, in the order of their code points."""
    raw: Counter[str] = Counter()
    for text in texts:
        raw.update(text)
    counts: Counter[str] = Counter()
    for character, count in raw.items():  # the normalizer treats each character by itself
        for c in backend.normalizer.normalize_str(character):
            counts[c] += 0 if c.isspace() else count
    return sorted(sorted(+counts, key=lambda c: (-counts[c], c))[:limit])


def _continues(character: str, backend: tokenizers.Tokenizer) -> bool:
    """Tell whether a character can stand inside a word: punctuation and Chinese characters are words themselves."""
    text = backend.normalizer.normalize_str(f"a{character}")
    return len(backend.pre_tokenizer.pre_tokenize_str(text)) == 1


def _in_lists(texts: Iterable[str], size: int = 1000) -> Iterator[list[str]]:
    """Hand texts over in lists: one crossing into the tokenizer library for a thousand texts."""
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Open a tokenizer saved by us or by `transformers` (a folder with `tokenizer.json`).

    Raises:
        UserError: the file is missing or damaged, or a special token is missing.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path} does not exist; is {folder} a folder written by `mlmkit pretrain`?")
    try:
        return Tokenizer(tokenizers.Tokenizer.from_file(str(path)))
    except UserError:
        raise
    except Exception as error:  # the library raises a bare Exception
        raise UserError(f"{path} is not a tokenizer: {error}") from error

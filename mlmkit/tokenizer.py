"""Text ↔ ids: WordPiece, trained from scratch with `tokenizers` and saved so that `transformers` opens it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

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
        _require_special_tokens(backend.get_vocab())
        self.backend = backend
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = map(self.id, SPECIAL_TOKENS)

    @property
    def vocab_size(self) -> int:
        """Number V of ids, the special ones included; the highest id is V − 1."""
        return max(self.backend.get_vocab().values()) + 1

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

    def save(self, folder: str | Path, max_length: int = 512) -> None:
        """Write `tokenizer.json`, `tokenizer_config.json` and `vocab.txt`; `transformers.AutoTokenizer` opens them.

        Args:
            folder: is made if it does not exist.
            max_length: longest input of the model; `transformers` cuts longer texts where it is asked to.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        by_id = {index: token for token, index in self.backend.get_vocab().items()}
        lines = [by_id.get(index, f"[unused-{index}]") for index in range(self.vocab_size)]  # an id may have no token
        (folder / "vocab.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        settings = {
            **_cutting(self.backend),
            "model_max_length": max_length,
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
    backend = _backend(_numbered(SPECIAL_TOKENS), lowercase)
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
    return Tokenizer(_backend(_numbered(sorted(learned, key=learned.__getitem__)[:vocab_size]), lowercase))


def word_tokenizer(words: Sequence[str]) -> Tokenizer:
    """Build a tokenizer of a closed vocabulary: every word is one token, after the special tokens, in order.

    Args:
        words: different, lower case, one piece each for BERT's pre-tokenizer (letters only).

    Raises:
        UserError: a word is no single token, or stands there twice.

    >>> word_tokenizer(["cat", "mat"]).encode("mat cat")
    [6, 5]
    """
    tokenizer = Tokenizer(_backend(_numbered([*SPECIAL_TOKENS, *words]), lowercase=True))
    for number, word in enumerate(words, start=len(SPECIAL_TOKENS)):
        if tokenizer.encode(word) != [number]:
            raise UserError(f"{word!r} cannot be a word of a closed vocabulary: it is repeated, or no single word")
    return tokenizer


def _require_special_tokens(vocabulary: Mapping[str, int]) -> None:
    missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
    if missing:
        raise UserError(f"the tokenizer has no {', '.join(missing)}; BERT needs {' '.join(SPECIAL_TOKENS)}")


def _numbered(vocabulary: Sequence[str]) -> dict[str, int]:
    """Ids in the order of the tokens; of one that stands there twice the later id, as in `transformers`."""
    return {token: index for index, token in enumerate(vocabulary)}


def _backend(ids: dict[str, int], lowercase: bool) -> tokenizers.Tokenizer:
    """BERT's way of cutting words, around a vocabulary that holds the special tokens."""
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
    """Open a tokenizer saved by us or by `transformers`: a folder with `tokenizer.json`, or with `vocab.txt` alone.

    As in `transformers`, what `tokenizer_config.json` says about case, accents and Chinese characters counts. A limit
    on the length, or padding, that is kept in `tokenizer.json` does not: batches are cut and padded elsewhere.

    Raises:
        UserError: the file is missing or damaged, or a special token is missing.
    """
    folder = Path(folder)
    path, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    settings = _read_settings(folder / "tokenizer_config.json")
    if not path.is_file() and vocabulary.is_file():
        return Tokenizer(_backend_of_lines(vocabulary, settings))
    if not path.is_file():
        raise UserError(f"{path} does not exist; is {folder} a folder written by `mlmkit pretrain`?")
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception
        raise UserError(f"{path} is not a tokenizer: {error}") from error
    backend.no_truncation()
    backend.no_padding()
    if isinstance(backend.normalizer, normalizers.BertNormalizer):
        backend.normalizer = _said(backend.normalizer, settings)
    return Tokenizer(backend)


def _backend_of_lines(path: Path, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """A `vocab.txt` holds a token a line, its id the number of the line, from 0 on."""
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # other line ends may be tokens
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a vocabulary: {error}") from None
    ids = _numbered(lines)
    try:
        _require_special_tokens(ids)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    backend = _backend(ids, lowercase=True)
    backend.normalizer = _said(normalizers.BertNormalizer(strip_accents=None), settings)
    return backend


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is damaged, it is not JSON ({error}); put a good copy in its place") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path} is damaged, it holds no JSON object; put a good copy in its place")
    return settings


_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
"""Names in `tokenizer_config.json` → attributes of the normalizer."""


def _said(normalizer: normalizers.BertNormalizer, settings: Mapping[str, Any]) -> normalizers.BertNormalizer:
    """A normalizer with what the settings say; what they do not mention stays."""
    said = {ours: settings[theirs] for theirs, ours in _SETTINGS.items() if theirs in settings}
    kept = {name: getattr(normalizer, name) for name in ("clean_text", *_SETTINGS.values())}
    try:
        return normalizers.BertNormalizer(**{**kept, **said})
    except TypeError as error:
        raise UserError(
            f"tokenizer_config.json does not fit: {error}; {', '.join(_SETTINGS)} are true or false"
        ) from None


def _cutting(backend: tokenizers.Tokenizer) -> dict[str, Any]:
    """What `tokenizer_config.json` must say so that `transformers` cuts words the same way.

    Its BertTokenizer takes the vocabulary from `tokenizer.json` and builds the rest anew from these settings. Where
    that would not give the same, the class is named that takes the file as it is.
    """
    cut, words = backend.normalizer, backend.model
    as_bert = (
        isinstance(cut, normalizers.BertNormalizer)
        and cut.clean_text
        and isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and isinstance(words, models.WordPiece)
        and (words.continuing_subword_prefix, words.max_input_chars_per_word) == (CONTINUATION, 100)
        and {added.content for added in backend.get_added_tokens_decoder().values()} <= set(SPECIAL_TOKENS)
    )
    if not as_bert:
        inputs = ["input_ids", "token_type_ids", "attention_mask"]
        return {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": inputs}
    return {"tokenizer_class": "BertTokenizer"} | {theirs: getattr(cut, ours) for theirs, ours in _SETTINGS.items()}

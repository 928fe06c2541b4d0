"""The tokenizer: learned from text, the same every time, and opened by `transformers` without a difference."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import FIRST, prose, tiny_tokenizer, tokenizer_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmkit.errors import UserError
from mlmkit.tokenizer import SPECIAL_TOKENS, Tokenizer, _in_lists, load_tokenizer, train_wordpiece, word_tokenizer

FRAGMENTS = (
    *("badelo", "Badelo", "KILO", "zenzen", "unheard", "don't", "snake_case", "3.14", "ba" * 50, "ba" * 50 + "k"),
    *("[MASK]", "[mask]", "[SEP]", "[CLS]", "[PAD]", "[UNK]", "[MASK]s", "un[MASK]ed", "[unused3]", "##ki", "##"),
    *("café", "cafe\u0301", "ÅNGSTRÖM", "İstanbul", "straße", "Σίσυφος", "привет", "שלום", "مرحبا", "हिन्दी"),
    *("你好世界", "日本語テキスト", "한국어", "🙂", "👩‍👩‍👧", "a\u200bb", "a\u00adb", "ﬁne", "①", "…", "—", "“q”"),
    *("\t", "\n", "\r\n", "\x00", "\u3000", "\ufeff", "\u0301", "!?", "...", "<b>", "$5", "100%", "#1", "a/b", "{}"),
)


def varied_strings(count: int = 200) -> list[str]:
    """Sentences with everything that text from the wild contains, a first one that is empty."""
    rng = random.Random(0)
    made = [rng.choice([" ", "", "  "]).join(rng.choices(FRAGMENTS, k=rng.randint(1, 8))) for _ in range(count - 101)]
    return ["", *made, *prose(5, 100)]


# --- what is learned ------------------------------------------------------------------------------------------


def test_the_special_tokens_have_the_ids_0_to_4() -> None:
    tokenizer = tiny_tokenizer()
    assert tokenizer.tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] == list(SPECIAL_TOKENS)
    ids = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id)
    assert ids == (0, 1, 2, 3, 4)
    assert tokenizer.special_ids.tolist() == [0, 1, 2, 3, 4]
    assert tokenizer.ordinary_ids.tolist() == list(range(5, tokenizer.vocab_size))


def test_the_same_text_gives_the_same_vocabulary_every_time() -> None:
    """Many pairs of pieces are equally frequent here, and many characters are: ties must not fall by chance."""
    rng = random.Random(0)
    letters = [chr(code) for code in (*range(97, 123), *range(0x3B1, 0x3CA), *range(0x430, 0x450))]
    texts = [" ".join("".join(rng.choices(letters, k=4)) for _ in range(8)) for _ in range(60)] * 2
    runs = {train_wordpiece(texts, 250).backend.to_str() for _ in range(4)}
    assert len(runs) == 1


def test_an_iterator_teaches_the_same_as_a_list_whatever_its_length() -> None:
    """Texts go to the library in lists of a thousand; 2,500 of them end within the third list."""
    texts = prose(1, 2500)
    assert [len(some) for some in _in_lists(texts)] == [1000, 1000, 500]
    assert [len(some) for some in _in_lists(texts[:1000])] == [1000]

    def once() -> Iterator[str]:
        yield from texts

    assert train_wordpiece(once(), 300).backend.to_str() == train_wordpiece(texts, 300).backend.to_str()
    fewer = train_wordpiece(texts[:2000], 300)
    assert fewer.backend.to_str() != train_wordpiece(texts, 300).backend.to_str()


@pytest.mark.parametrize("size", [6, 7, 9, 12, 40, 150, 100_000])
def test_the_vocabulary_is_never_larger_than_asked_and_has_no_holes(size: int) -> None:
    tokenizer = train_wordpiece(prose(0, 200), size)
    assert tokenizer.vocab_size <= size
    assert sorted(tokenizer.backend.get_vocab().values()) == list(range(tokenizer.vocab_size))
    assert len(tokenizer.ordinary_ids) == tokenizer.vocab_size - 5 > 0
    if 40 <= size <= 150:
        assert tokenizer.vocab_size == size


def test_characters_come_before_longer_pieces_and_only_letters_and_digits_continue_a_word() -> None:
    tokenizer = train_wordpiece(["ab ab, ba! 日本 abba abba"] * 3, 100)
    learned = tokenizer.tokens(range(FIRST, tokenizer.vocab_size))
    assert learned[:8] == ["!", ",", "a", "b", "日", "本", "##a", "##b"]
    assert {"ab", "ba", "abba"} <= set(learned[8:])
    assert all(len(piece.removeprefix("##")) > 1 for piece in learned[8:])


def test_only_the_most_frequent_characters_have_a_place_and_a_word_with_another_is_unknown() -> None:
    """A vocabulary of 12 has room for three characters; rare ones would push out all longer pieces."""
    tokenizer = train_wordpiece(["aaaa bbb cc d"] * 5, 12)
    assert tokenizer.pieces("abc") == ["a", "##b", "##c"]
    assert tokenizer.pieces("abd") == ["[UNK]"]


def test_a_frequent_word_becomes_one_piece_and_a_rare_one_is_cut() -> None:
    tokenizer = tiny_tokenizer()
    assert tokenizer.pieces("ki") == ["ki"]
    assert len(tokenizer.pieces("badelozenmu")) > 1
    assert "".join(tokenizer.pieces("badelozenmu")).replace("##", "") == "badelozenmu"


@cache
def tokenizer_of_some_letters_and_digits() -> Tokenizer:
    return train_wordpiece([*prose(0, 200), "0123456789 9876543210", "abdegiklmnoprstuvz zvutsrponmlkigedba"], 200)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abdegiklmnoprstuvz0123456789", min_size=1, max_size=20), min_size=1, max_size=6))
def test_text_of_known_characters_is_never_unknown_and_comes_back_as_it_was(words: list[str]) -> None:
    tokenizer = tokenizer_of_some_letters_and_digits()
    text = " ".join(words)
    ids = tokenizer.encode(text)
    assert tokenizer.unk_id not in ids
    assert tokenizer.decode(ids) == text


def test_uncased_folds_case_and_accents_and_cased_keeps_both() -> None:
    texts = ["Émile mange une Pomme"] * 5
    uncased, cased = train_wordpiece(texts, 100), train_wordpiece(texts, 100, lowercase=False)
    assert uncased.encode("ÉMILE pomme") == uncased.encode("emile Pomme")
    assert uncased.unk_id not in uncased.encode("ÉMILE")
    assert cased.pieces("Émile") == ["Émile"]
    assert "".join(cased.pieces("mange")).replace("##", "") == "mange"
    assert cased.encode("Émile") != cased.encode("émile")


@pytest.mark.parametrize("texts", [[], ["", "  \n"], iter([])])
def test_no_text_no_vocabulary(texts: list[str]) -> None:
    with pytest.raises(UserError, match="the training text is empty"):
        train_wordpiece(texts)


def test_a_vocabulary_needs_room_beside_the_special_tokens() -> None:
    with pytest.raises(UserError, match="leave room beside the 5 special tokens, got 5"):
        train_wordpiece(["a"], 5)


# --- what it tells about its vocabulary ----------------------------------------------------------------------


def test_a_piece_that_continues_a_word_is_known_as_such() -> None:
    tokenizer = tiny_tokenizer()
    flags = tokenizer.is_continuation
    assert flags.shape == (tokenizer.vocab_size,)
    assert flags.dtype == bool
    assert [t.startswith("##") for t in tokenizer.tokens(range(tokenizer.vocab_size))] == flags.tolist()
    assert 0 < flags.sum() < len(flags)


def test_reserved_entries_are_no_replacement_for_a_word() -> None:
    """BERT's own vocabulary begins with [unused…]; a model should never see or predict one."""
    tokenizer = tokenizer_of(["[unused0]", *SPECIAL_TOKENS[::-1], "[unused1]", "cat", "[cat]"])
    assert tokenizer.special_ids.tolist() == [1, 2, 3, 4, 5]
    assert (tokenizer.mask_id, tokenizer.pad_id) == (1, 5)
    assert tokenizer.ordinary_ids.tolist() == [7, 8]


def test_ids_tokens_pieces_and_text_say_the_same() -> None:
    tokenizer = tiny_tokenizer()
    text = "Badelo kilo, [MASK] zenzen."
    ids = tokenizer.encode(text)
    assert tokenizer.tokens(np.array(ids)) == tokenizer.pieces(text)
    assert [tokenizer.id(token) for token in tokenizer.pieces(text)] == ids
    assert tokenizer.encode_batch([text, "", "ki"]) == [ids, [], tokenizer.encode("ki")]
    assert tokenizer.decode(ids, skip_special=False) == "badelo kilo, [MASK] zenzen."
    assert tokenizer.decode(ids) == "badelo kilo, zenzen."
    assert tokenizer.tokens([tokenizer.vocab_size]) == ["[UNK]"]  # a model may have more rows than the vocabulary


def test_a_pair_is_laid_out_with_the_first_separator_in_segment_0() -> None:
    tokenizer = tokenizer_of([*SPECIAL_TOKENS, "a", "b", "c"])
    assert tokenizer.pair_ids("a b", "c") == ([2, 5, 6, 3, 7, 3], [0, 0, 0, 0, 1, 1])
    assert tokenizer.pair_ids("a b") == ([2, 5, 6, 3], [0, 0, 0, 0])
    learned = tiny_tokenizer()
    ids, segments = learned.pair_ids("ki", "ba ba")
    assert ids == [2, learned.id("ki"), 3, *[learned.id("ba")] * 2, 3]
    assert segments == [0, 0, 0, 1, 1, 1]


def test_a_word_that_is_no_single_token_is_refused_with_its_pieces() -> None:
    with pytest.raises(UserError, match=r"'badelozenmu' is not a single token of this vocabulary.*'##"):
        tiny_tokenizer().id("badelozenmu")


def test_a_vocabulary_without_mask_is_refused() -> None:
    with pytest.raises(UserError, match=r"has no \[PAD\], \[MASK\]; BERT needs"):
        tokenizer_of(["[UNK]", "[CLS]", "[SEP]", "a"])


# --- on disk -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Path]:
    texts = [*prose(0, 400), "café Ångström Σίσυφος привет שלום 你好 한국어 straße ①" * 2]
    tokenizer, folder = train_wordpiece(texts, 400, request.param), tmp_path_factory.mktemp("saved") / "a" / "b"
    tokenizer.save(folder)
    return tokenizer, folder


def test_transformers_opens_the_folder_and_gives_identical_ids_for_200_varied_strings(
    saved: tuple[Tokenizer, Path],
) -> None:
    from transformers import AutoTokenizer

    tokenizer, folder = saved
    theirs = AutoTokenizer.from_pretrained(folder)
    texts = varied_strings()
    assert len(texts) == 200
    for a, b in zip(texts, texts[::-1], strict=True):
        alone = theirs(a)
        assert tokenizer.pair_ids(a) == (alone["input_ids"], alone["token_type_ids"]), a
        if b:  # an empty second text is no second text to them
            pair = theirs(a, b)
            assert tokenizer.pair_ids(a, b) == (pair["input_ids"], pair["token_type_ids"]), (a, b)
        assert tokenizer.encode(a) == theirs(a, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(tokenizer.encode(a)) == theirs.decode(theirs(a)["input_ids"], skip_special_tokens=True)


def test_transformers_knows_our_special_tokens_by_their_roles(saved: tuple[Tokenizer, Path]) -> None:
    from transformers import AutoTokenizer

    tokenizer, folder = saved
    theirs = AutoTokenizer.from_pretrained(folder)
    for role in ("pad", "unk", "cls", "sep", "mask"):
        assert getattr(theirs, f"{role}_token") == f"[{role.upper()}]"
        assert getattr(theirs, f"{role}_token_id") == getattr(tokenizer, f"{role}_id")
    assert theirs.vocab_size == len(theirs) == tokenizer.vocab_size
    assert theirs.model_max_length == 512
    assert theirs("ki [MASK]", padding="max_length", max_length=8)["attention_mask"] == [1, 1, 1, 1, 0, 0, 0, 0]


def test_a_saved_tokenizer_comes_back_as_it_was(saved: tuple[Tokenizer, Path]) -> None:
    tokenizer, folder = saved
    again = load_tokenizer(folder)
    assert again.backend.to_str() == tokenizer.backend.to_str()
    assert again.encode_batch(varied_strings()) == tokenizer.encode_batch(varied_strings())
    assert (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1] == tokenizer.tokens(
        range(tokenizer.vocab_size)
    )
    assert sorted(p.name for p in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json", "vocab.txt"]


def test_a_tokenizer_saved_by_transformers_is_opened_with_its_own_ids(tmp_path: Path) -> None:
    """In BERT's own vocabulary the special tokens stand at other places, behind reserved entries."""
    from transformers import BertTokenizerFast

    pieces = [
        *("[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
        *("play", "##ing", "##s", "chess", "we", ",", ".", "cafe"),
    ]
    theirs = BertTokenizerFast(vocab={piece: i for i, piece in enumerate(pieces)})
    theirs.save_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    assert (ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id, ours.mask_id) == (0, 3, 4, 5, 6)
    assert ours.special_ids.tolist() == [0, 3, 4, 5, 6]
    assert ours.ordinary_ids.tolist() == list(range(7, 15))
    assert np.flatnonzero(ours.is_continuation).tolist() == [8, 9]
    for a in ("We plays chess, playing.", "Café [MASK] unknown", ""):
        alone, pair = theirs(a), theirs(a, "we play")
        assert ours.pair_ids(a) == (alone["input_ids"], alone["token_type_ids"])
        assert ours.pair_ids(a, "we play") == (pair["input_ids"], pair["token_type_ids"])
    ours.save(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())["do_lower_case"] is True


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing.tokenizer\.json does not exist; is .*nothing a folder written by"):
        load_tokenizer(tmp_path / "nothing")


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"[1, 2]", b"\xff\xfe\x00", b'{"model": {"type": "BPE"}}'])
def test_a_damaged_file_is_named_and_not_a_traceback(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match=r"tokenizer\.json is not a tokenizer: "):
        load_tokenizer(tmp_path)


def test_a_tokenizer_cut_short_while_it_was_written_is_not_opened(
    saved: tuple[Tokenizer, Path], tmp_path: Path
) -> None:
    whole = (saved[1] / "tokenizer.json").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is not a tokenizer"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_of_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    """A file that is whole, but has no [CLS]: the message names what is missing, not what is damaged."""
    import tokenizers

    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]")).save(
        str(tmp_path / "tokenizer.json")
    )
    with pytest.raises(UserError, match=r"^the tokenizer has no \[PAD\], \[CLS\], \[SEP\], \[MASK\]"):
        load_tokenizer(tmp_path)


# --- as others saved it ----------------------------------------------------------------------------------------


def write_lines(folder: Path, lines: list[str], **settings: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text('{"model_type": "bert"}')


CASED = (
    *("[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[unused2]", "[MASK]"),
    *(c for c in "abcdefghijklmnopqrstuvwxyzABCDEÉéÅåßøØ0123456789.,!?'\"-()$%#&/你好世界日本語"),
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyzABCDEÉéÅåßøØ0123456789"),
    *("café", "Café", "the", "The", "##ing", "🙂", "привет", "한국어"),
)


@pytest.fixture(scope="module", params=[{"do_lower_case": False}, {"do_lower_case": True, "strip_accents": False}])
def from_lines(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    """A vocabulary with special tokens at other places, and `transformers`' reading of what we saved of it."""
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("lines")
    write_lines(folder / "in", list(CASED), **request.param)
    ours = load_tokenizer(folder / "in")
    ours.save(folder / "out")
    return ours, AutoTokenizer.from_pretrained(folder / "out")


WILD = st.lists(
    st.one_of(
        st.text("abcdeABCDEéÉåøß 0123456789.,!?'-你好世界日本語", max_size=8),
        st.characters(exclude_categories=["Cs"]),  # half a surrogate is no text
        st.sampled_from(["\u0301", "🙂", "👩\u200d👧", "İ", "ﬁ", "한", "[MASK]", " the ", " café", "##"]),
    ),
    max_size=20,
).map("".join)


@settings(max_examples=200, deadline=None)
@given(text=WILD)
def test_wild_unicode_has_the_ids_that_transformers_gives_it(from_lines: tuple[Tokenizer, Any], text: str) -> None:
    ours, theirs = from_lines
    assert ours.pair_ids(text)[0] == theirs(text)["input_ids"]


def test_special_tokens_at_other_places_are_found_by_name(from_lines: tuple[Tokenizer, Any]) -> None:
    ours, theirs = from_lines
    assert ours.special_ids.tolist() == [0, 3, 4, 5, 7]
    assert [theirs.pad_token_id, theirs.unk_token_id, theirs.cls_token_id] == [0, 3, 4]
    assert [theirs.sep_token_id, theirs.mask_token_id] == [5, 7]
    assert set(ours.ordinary_ids) == set(range(8, len(CASED)))


def test_a_line_ends_at_a_line_feed_and_nowhere_else(tmp_path: Path) -> None:
    """Separators of paragraphs and other control characters may be tokens; splitting at them would shift all ids."""
    lines = [*SPECIAL_TOKENS, "a", "\u2028", "\x85", "\x0c", "b", "##c"]
    write_lines(tmp_path, lines)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.tokens(range(tokenizer.vocab_size)) == lines
    assert tokenizer.encode("a bc") == [5, 9, 10]


def test_a_repeated_line_leaves_an_id_without_a_token_and_moves_no_other(tmp_path: Path) -> None:
    write_lines(tmp_path / "in", [*SPECIAL_TOKENS, "a", "b", "a", "##c"])
    tokenizer = load_tokenizer(tmp_path / "in")
    assert tokenizer.encode("a b ac") == [7, 6, 7, 8]
    assert tokenizer.vocab_size == len(tokenizer.is_continuation) == 9
    assert tokenizer.ordinary_ids.tolist() == [6, 7, 8]
    assert tokenizer.tokens([5]) == ["[UNK]"]
    tokenizer.save(tmp_path / "out")
    (tmp_path / "out" / "tokenizer.json").unlink()
    again = load_tokenizer(tmp_path / "out")
    assert again.encode("a b ac") == [7, 6, 7, 8]
    assert again.ordinary_ids.tolist() == [6, 7, 8]


@pytest.mark.parametrize(
    "said", [{"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}, {}]
)
def test_what_tokenizer_config_says_counts_as_in_transformers(tmp_path: Path, said: dict[str, bool]) -> None:
    from transformers import AutoTokenizer

    write_lines(tmp_path / "in", list(CASED), do_lower_case=True)
    load_tokenizer(tmp_path / "in").save(tmp_path / "out")
    settings_file = tmp_path / "out" / "tokenizer_config.json"
    kept = {"do_lower_case": True} if not said else json.loads(settings_file.read_text()) | said
    settings_file.write_text(json.dumps({"tokenizer_class": "BertTokenizer"} | kept))
    ours, theirs = load_tokenizer(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("Café THE the", "Éa 你好 日本語", "a你b", *varied_strings()[:60]):
        assert ours.pair_ids(text)[0] == theirs(text)["input_ids"], text


def test_a_length_limit_and_padding_in_the_file_do_not_cut_our_texts(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.save(tmp_path)
    import tokenizers

    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=50)
    backend.save(str(tmp_path / "tokenizer.json"))
    text = "ba de ki lo mu na po ri"
    assert load_tokenizer(tmp_path).encode(text) == tokenizer.encode(text)
    assert load_tokenizer(tmp_path).encode_batch([text, "ba"]) == tokenizer.encode_batch([text, "ba"])


def added_token() -> Tokenizer:
    backend = load_backend(tiny_tokenizer())
    backend.add_tokens(["<user>"])
    return Tokenizer(backend)


def load_backend(tokenizer: Tokenizer) -> Any:
    import tokenizers

    return tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())


def other_normalizer() -> Tokenizer:
    from tokenizers import normalizers

    backend = load_backend(tiny_tokenizer())
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    return Tokenizer(backend)


@pytest.mark.parametrize(
    "make", [lambda: tokenizer_of([*SPECIAL_TOKENS, "a", "b", "c"]), added_token, other_normalizer]
)
def test_a_tokenizer_that_does_not_cut_as_bert_is_saved_so_that_transformers_does_not_either(
    tmp_path: Path, make: Callable[[], Tokenizer]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = make()
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("a b. c", "Badelo <user> kilo", "É é!", "b"):
        encoded = theirs(text)
        assert (encoded["input_ids"], encoded["token_type_ids"]) == tokenizer.pair_ids(text)
    assert theirs.mask_token_id == tokenizer.mask_id
    assert load_tokenizer(tmp_path).encode("Badelo <user> kilo") == tokenizer.encode("Badelo <user> kilo")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer_config.json", b"{", r"tokenizer_config\.json is damaged, it is not JSON"),
        ("tokenizer_config.json", b"[1]", r"tokenizer_config\.json is damaged, it holds no JSON object"),
        (
            "tokenizer_config.json",
            b'{"do_lower_case": "yes"}',
            r"tokenizer_config\.json does not fit: .*are true or false",
        ),
        ("vocab.txt", b"\xff\xfe", r"vocab\.txt is not a vocabulary"),
        ("vocab.txt", b"[PAD]\n[UNK]\n[CLS]\na\n", r"vocab\.txt: the tokenizer has no \[SEP\], \[MASK\]"),
        ("vocab.txt", b"", r"vocab\.txt: the tokenizer has no \[PAD\]"),
    ],
)
def test_a_damaged_vocabulary_or_its_settings_are_named(
    tmp_path: Path, file: str, content: bytes, message: str
) -> None:
    write_lines(tmp_path, list(CASED))
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)


# --- a closed vocabulary ---------------------------------------------------------------------------------------


def test_in_a_closed_vocabulary_every_word_is_one_token_after_the_special_ones(tmp_path: Path) -> None:
    words = ["kettle", "a", "sings", "kettles"]
    tokenizer = word_tokenizer(words)
    assert tokenizer.vocab_size == 9
    assert [tokenizer.id(word) for word in words] == [5, 6, 7, 8]
    assert tokenizer.encode("A kettle sings") == [6, 5, 7]
    assert tokenizer.encode("teapot") == [tokenizer.unk_id]
    assert tokenizer.ordinary_ids.tolist() == [5, 6, 7, 8]
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).encode("kettles sings a") == [8, 7, 6]


@pytest.mark.parametrize("words", [["a", "b", "a"], ["two words"], ["Upper"], ["it's"], [""]])
def test_what_is_no_single_word_has_no_place_in_a_closed_vocabulary(words: list[str]) -> None:
    with pytest.raises(UserError, match="cannot be a word of a closed vocabulary"):
        word_tokenizer(words)

"""Were two neighboring words exchanged: what a linear probe reads of the order of words, layer by layer (C26)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlmkit.batches import Batch
from mlmkit.errors import UserError
from mlmkit.exact import log_evidence
from mlmkit.inspection.linear import Probe, linear_probe
from mlmkit.inspection.reading import clean_pairs, hidden_states, language_of, untrained
from mlmkit.intervals import Share, share_of
from mlmkit.language import Language
from mlmkit.masking import candidates
from mlmkit.model import BertForPreTraining
from mlmkit.preparation import Data
from mlmkit.tokenizer import Tokenizer

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class WordOrder:
    """How often linear probes tell whether two neighboring words were exchanged, for each layer.

    Number 0 is what enters the encoder, number l what layer l makes of it (L + 1).

    Attributes:
        trained: from the vectors of the two words in the model.
        untrained: from those in the same network with fresh weights.
        control: the model's vectors, but the answer is a coin tossed once for each two words in this order. It can
            only be learned by heart, so it shows how much of that the probe can do.
        ceiling: what a perfect reader answers on these very questions; None where the language is not known.
    """

    trained: tuple[Probe, ...]
    untrained: tuple[Probe, ...]
    control: tuple[Probe, ...]
    ceiling: Share | None

    @property
    def selectivity(self) -> tuple[float, ...]:
        """Accuracy of each layer less that of its control (Hewitt & Liang 2019, §2)."""
        pairs = zip(self.trained, self.control, strict=True)
        return tuple(probe.accuracy.value - control.accuracy.value for probe, control in pairs)


def probe_word_order(model: BertForPreTraining, data: Data, pairs: int = 4000, seed: int = 0) -> WordOrder:
    """Ask linear probes on frozen vectors whether two neighboring words stand in their true order.

    In each sentence pair two different neighboring words are chosen, and exchanged with probability ½. The probe
    reads the two vectors at these places, side by side (2H numbers). A word in several pieces is not chosen.

    Where the words stand is in the vectors that enter the encoder: their positions were added. Whether they stand
    *rightly* has to be learned. What the probe reads already off layer 0 is which words like to come first.

    The probes are fitted on the validation part and judged on the test part.

    Args:
        model: its encoder is frozen.
        data: of the model's run, as `prepare` gives it.
        pairs: about so many to fit on, and so many to judge on, if there are.
        seed: of the places, the exchanges, the control's coins and the fresh weights.

    Raises:
        UserError: no two neighboring words were found, or too few.
    """
    rng, language = np.random.default_rng(seed), language_of(data)
    known, asked = (_ask(clean_pairs(data, split, pairs), data.tokenizer, rng) for split in ("validation", "test"))
    ours, theirs = ((_vectors(net, known), _vectors(net, asked)) for net in (model, untrained(model, seed)))
    exchanged, coins = (known.exchanged, asked.exchanged), (_coins(known, seed), _coins(asked, seed))
    return WordOrder(
        trained=_by_layer(ours, exchanged),
        untrained=_by_layer(theirs, exchanged),
        control=_by_layer(ours, coins),
        ceiling=None if language is None else _ceiling(language, asked),
    )


@dataclass(frozen=True)
class _Questions:
    """Sentence pairs as they are shown, where the two words stand, and whether they were exchanged.

    `shown` are lists of batches; `places`, `words` (P, 2) and `exchanged` (P,) go through all of them.
    """

    shown: list[Batch]
    places: list[Tensor]
    words: Ints
    exchanged: Ints


def _ask(batches: list[Batch], tokenizer: Tokenizer, rng: np.random.Generator) -> _Questions:
    """Choose two neighbors in each row, exchange them in about half of the rows."""
    shown, places, words, exchanged = [], [], [], []
    for batch in batches:
        ids = batch["input_ids"].numpy()  # (B, S)
        may = _neighbors(ids, tokenizer)  # (B, S − 1)
        rows = np.flatnonzero(may.any(1))  # (R,)
        if not len(rows):
            continue
        left = np.where(may[rows], rng.random((len(rows), may.shape[1])), -1.0).argmax(1)  # (R,)
        at = left[:, None] + np.arange(2)  # (R, 2)
        change = rng.random(len(rows)) < 0.5
        seen = ids[rows]
        seen[np.arange(len(rows))[change, None], at[change]] = seen[
            np.arange(len(rows))[change, None], at[change, ::-1]
        ]
        shown.append({name: tensor[rows] for name, tensor in batch.items()} | {"input_ids": torch.from_numpy(seen)})
        places.append(torch.from_numpy(at))
        words.append(np.take_along_axis(seen, at, 1))
        exchanged.append(change.astype(np.int64))
    if not shown:
        raise UserError("no two neighboring words were found in the held-out text: give a larger corpus")
    return _Questions(shown, places, np.concatenate(words), np.concatenate(exchanged))


def _neighbors(ids: Ints, tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Whether a place and the next hold two different whole words (B, S − 1)."""
    continues = tokenizer.is_continuation[ids]  # (B, S)
    goes_on = np.pad(continues[:, 1:], ((0, 0), (0, 1)))
    whole = candidates(ids, tokenizer.special_ids) & ~continues & ~goes_on
    return whole[:, :-1] & whole[:, 1:] & (ids[:, :-1] != ids[:, 1:])


def _vectors(model: BertForPreTraining, questions: _Questions) -> NDArray[np.float32]:
    """The vectors of the two words side by side, for each layer (L + 1, P, 2H)."""
    found = []
    for batch, at in zip(questions.shown, questions.places, strict=True):
        layers = hidden_states(model, batch["input_ids"], batch["token_type_ids"], batch["attention_mask"])
        found.append(layers[:, torch.arange(len(at))[:, None], at].flatten(2))  # (L + 1, R, 2H)
    return torch.cat(found, dim=1).numpy()


def _by_layer(
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]], answers: tuple[Ints, Ints]
) -> tuple[Probe, ...]:
    """A probe for each layer: fitted on the first vectors and answers, judged on the second."""
    return tuple(linear_probe(known, answers[0], asked, answers[1]) for known, asked in zip(*vectors, strict=True))


def _coins(questions: _Questions, seed: int) -> Ints:
    """A coin for each two words in their order, the same wherever they come again (P,)."""
    return np.array([np.random.default_rng([seed, *two]).integers(2) for two in questions.words.tolist()])


def _ceiling(language: Language, questions: _Questions) -> Share:
    """Right answers of a reader who knows how likely the text is as it stands, and with the two words exchanged."""
    says: list[NDArray[np.bool_]] = []
    for batch, at in zip(questions.shown, questions.places, strict=True):
        back = batch["input_ids"].scatter(1, at, batch["input_ids"].gather(1, at.flip(1)))
        as_shown, exchanged = (log_evidence(language, ids, policy=None) for ids in (batch["input_ids"], back))
        says.append((exchanged > as_shown).numpy())
    return share_of((np.concatenate(says) == (questions.exchanged == 1)).sum(), len(questions.exchanged))

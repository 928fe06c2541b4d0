"""Functions to write on new heads: keep the encoder and replace the head, find what was not copied."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlmkit.grading.plain import Rng
from mlmkit.grading.tasks import Call, CodeTask, Mistake

Array = np.ndarray[Any, Any]

DEVIATIONS = 6.5
"""Standard deviations that chance alone exceeds with a probability below 1e-10."""


# 14.10 Keep the encoder, replace the head


def _weights(rng: np.random.Generator, hidden: int, layers: int, vocabulary: int) -> dict[str, Array]:
    shapes: dict[str, tuple[int, ...]] = {"encoder.embeddings.token.weight": (vocabulary, hidden)}
    for layer in range(layers):
        shapes[f"encoder.layers.{layer}.up.weight"] = (2 * hidden, hidden)
        shapes[f"encoder.layers.{layer}.up.bias"] = (2 * hidden,)
    shapes |= {"mlm.dense.weight": (hidden, hidden), "mlm.decoder.weight": (vocabulary, hidden)}
    shapes |= {"mlm.decoder.bias": (vocabulary,), "nsp.pooler.weight": (hidden, hidden), "nsp.pooler.bias": (hidden,)}
    shapes |= {"nsp.relation.weight": (2, hidden), "nsp.relation.bias": (2,)}
    return {name: np.asarray(rng.normal(size=shape)) for name, shape in shapes.items()}


def _draw_model(rng: np.random.Generator) -> dict[str, Any]:
    weights = _weights(rng, int(rng.integers(8, 17)), int(rng.integers(1, 3)), int(rng.integers(5, 9)))
    prefix = str(rng.choice(["", "", "bert.", "model.", "module."]))
    return {
        "weights": {prefix + name: array for name, array in weights.items()},
        "labels": int(rng.integers(3, 8)),
        "rng": Rng(int(rng.integers(2**31))),
        "prefix": prefix,
    }


def replace_head(weights: Mapping[str, Array], labels: int, rng: np.random.Generator, prefix: str) -> dict[str, Array]:
    """Encoder and pooler as they are, under their new names; the last layer new; the old heads left behind."""
    plain = {name[len(prefix) :]: array for name, array in weights.items()}
    kept = {name: array for name, array in plain.items() if name.startswith("encoder.")}
    kept |= {f"pooler.{part}": plain[f"nsp.pooler.{part}"] for part in ("weight", "bias")}
    hidden = kept["pooler.bias"].shape[0]
    return kept | {"classifier.weight": rng.normal(0, 0.02, (labels, hidden)), "classifier.bias": np.zeros(labels)}


def _keeps_mlm(weights: Mapping[str, Array], labels: int, rng: np.random.Generator, prefix: str) -> dict[str, Array]:
    plain = {name[len(prefix) :]: array for name, array in weights.items()}
    return replace_head(weights, labels, rng, prefix) | {n: a for n, a in plain.items() if n.startswith("mlm.")}


def _random_part(start: str) -> Any:
    """The solution that draws anew every tensor whose name begins so."""

    def answer(weights: Mapping[str, Array], labels: int, rng: np.random.Generator, prefix: str) -> dict[str, Array]:
        right = replace_head(weights, labels, rng, prefix)
        return {n: np.asarray(rng.normal(0, 0.02, a.shape)) if n.startswith(start) else a for n, a in right.items()}

    return answer


def _old_names(weights: Mapping[str, Array], labels: int, rng: np.random.Generator, prefix: str) -> dict[str, Array]:
    right = replace_head(weights, labels, rng, prefix)
    return {n.replace("pooler.", "nsp.pooler."): a for n, a in right.items()}


def _prefix_kept(weights: Mapping[str, Array], labels: int, rng: np.random.Generator, prefix: str) -> dict[str, Array]:
    right = replace_head(weights, labels, rng, prefix)
    return {n if n.startswith("classifier") else prefix + n: a for n, a in right.items()}


def _head(std: float = 0.02, turned: bool = False) -> Any:
    """The solution with another first state of the new layer."""

    def answer(weights: Mapping[str, Array], labels: int, rng: np.random.Generator, prefix: str) -> dict[str, Array]:
        right = replace_head(weights, labels, rng, prefix)
        weight = np.asarray(rng.normal(0, std, right["classifier.weight"].shape))
        return right | {"classifier.weight": weight.T if turned else weight}

    return answer


def _verify_heads(calls: Sequence[Call]) -> str | None:
    drawn: list[float] = []
    for call in calls:
        problem = _verify_head(call)
        if problem:
            return problem
        drawn += np.asarray(call.got["classifier.weight"], dtype=float).ravel().tolist()
    return _verify_start(np.array(drawn))


def _verify_head(call: Call) -> str | None:
    """What is wrong with the names and with all that is not random."""
    got, prefix = call.got, call.inputs["prefix"]
    if not isinstance(got, Mapping) or not all(isinstance(name, str) for name in got):
        return "the result should be a dictionary: name → array"
    right = replace_head(call.inputs["weights"], call.inputs["labels"], np.random.default_rng(0), prefix)
    for name in got:
        if name.startswith(("mlm.", "nsp.relation.")):
            return (
                f"{name!r} is still there: the heads of pre-training are left behind, the task does not ask for words"
            )
        if name not in right:
            return f"there should be no {name!r}: the names are those of the new network, without a prefix"
    for name, array in right.items():
        if name not in got:
            return f"{name!r} is missing: it would stay random in the new network, without an error"
        found = np.asarray(got[name]) if not isinstance(got[name], dict) else np.asarray(None)
        if found.dtype.kind not in "biuf" or found.shape != array.shape:
            return f"{name!r} should have the shape {array.shape} and has {found.shape}"
        if name == "classifier.bias" and found.any():
            return "'classifier.bias' should start at 0"
        if not name.startswith("classifier.") and not np.allclose(found, array, rtol=1e-5, atol=1e-6):
            return f"{name!r} is not the pre-trained one: what is not copied has to be learned again, from few labels"
    return None


def _verify_start(drawn: Array) -> str | None:
    """Whether the new weights look drawn from the normal law with deviation 0.02."""
    energy, n = float((drawn**2).sum() / 0.02**2), len(drawn)
    standard = ((energy / n) ** (1 / 3) - 1 + 2 / (9 * n)) / math.sqrt(2 / (9 * n))  # chi-square to normal
    if len(np.unique(drawn)) < 0.9 * n:
        return "the entries of 'classifier.weight' should be drawn one by one; many of yours are equal"
    if abs(standard) > DEVIATIONS:
        size = math.sqrt(energy / n) * 0.02
        return f"'classifier.weight' should be normal with deviation 0.02; the deviation of yours is about {size:.2g}"
    if abs(drawn.mean()) > DEVIATIONS * 0.02 / math.sqrt(n):
        return f"'classifier.weight' should have the mean 0; the mean of yours is about {drawn.mean():.2g}"
    return None


REPLACE = CodeTask(
    id="14.10",
    title="Keep the encoder, replace the head",
    points=5,
    concepts=("C28",),
    function="replace_head",
    reference=replace_head,
    draw=_draw_model,
    verify=_verify_heads,
    rounds=16,
    mistakes=(
        Mistake("keeps the MLM head", _keeps_mlm, "is still there: the heads of pre-training are left behind"),
        Mistake("encoder starts anew", _random_part("encoder."), "is not the pre-trained one"),
        Mistake("pooler starts anew", _random_part("pooler."), "'pooler.weight' is not the pre-trained one"),
        Mistake("pooler under its old name", _old_names, "there should be no 'nsp.pooler.weight'"),
        Mistake("prefix kept", _prefix_kept, "the names are those of the new network, without a prefix"),
        Mistake("wrong way round", _head(turned=True), "'classifier.weight' should have the shape"),
        Mistake("starts too large", _head(std=1.0), "should be normal with deviation 0.02"),
        Mistake("all zero", _head(std=0.0), "drawn one by one"),
    ),
    hints=(
        "Three fates: what begins with `encoder.` is copied, the pooler is copied under a new name, the last layer is "
        "new.",
        "Take the prefix off each name first. The hidden size is the length of the pooler's bias.",
        "`rng.normal(0, 0.02, (labels, hidden))` is the new weight; a loop over the names copies the rest.",
    ),
)


# 14.13 What was not copied


def not_copied(network: Mapping[str, Array], pretrained: Mapping[str, Array]) -> list[str]:
    """Names of the encoder's and the pooler's tensors that are not the pre-trained ones, sorted."""
    home = {name: name.replace("pooler.", "nsp.pooler.") for name in network if not name.startswith("classifier.")}
    return sorted(name for name, old in home.items() if not np.array_equal(network[name], pretrained[old]))


def _network(rng: np.random.Generator, pretrained: Mapping[str, Array], random_share: float) -> dict[str, Array]:
    """A network of which some tensors were left random, and some differ in one entry only."""
    network = replace_head(pretrained, 3, rng, "")
    for name, array in network.items():
        chance = rng.random()
        if not name.startswith("classifier.") and chance < random_share:
            network[name] = np.asarray(rng.normal(size=array.shape))
        elif not name.startswith("classifier.") and chance > 0.9:
            network[name] = array.copy()
            network[name].flat[int(rng.integers(array.size))] += 1
    return network


def _draw_networks(rng: np.random.Generator) -> dict[str, Any]:
    pretrained = _weights(rng, 3, 1, 4)
    names = list(network := _network(rng, pretrained, float(rng.choice([0.0, 0.3, 1.0]))))
    return {"network": {names[i]: network[names[i]] for i in rng.permutation(len(names))}, "pretrained": pretrained}


def _edge(names: Sequence[str]) -> dict[str, Any]:
    """A network in which exactly these tensors are not the pre-trained ones."""
    pretrained = _weights(np.random.default_rng(len(names)), 3, 1, 4)
    network = replace_head(pretrained, 3, np.random.default_rng(9), "")
    return {"network": {n: a + (n in names) for n, a in network.items()}, "pretrained": pretrained}


def _missing_names(network: Mapping[str, Array], pretrained: Mapping[str, Array]) -> list[str]:
    return sorted(name for name in network if name not in pretrained and not name.startswith("classifier."))


def _shapes_only(network: Mapping[str, Array], pretrained: Mapping[str, Array]) -> list[str]:
    home = {name: name.replace("pooler.", "nsp.pooler.") for name in network if not name.startswith("classifier.")}
    return sorted(name for name, old in home.items() if network[name].shape != pretrained[old].shape)


def _encoder_only(network: Mapping[str, Array], pretrained: Mapping[str, Array]) -> list[str]:
    return [name for name in not_copied(network, pretrained) if name.startswith("encoder.")]


def _any_entry(network: Mapping[str, Array], pretrained: Mapping[str, Array]) -> list[str]:
    home = {name: name.replace("pooler.", "nsp.pooler.") for name in not_copied(network, pretrained)}
    return sorted(name for name, old in home.items() if not (network[name] == pretrained[old]).any())


NOT_COPIED = CodeTask(
    id="14.13",
    title="What was not copied",
    points=3,
    concepts=("C28",),
    function="not_copied",
    reference=not_copied,
    draw=_draw_networks,
    edges=(
        _edge([]),
        _edge(["pooler.weight", "pooler.bias"]),
        _edge(["encoder.layers.0.up.bias"]),
        _edge(["encoder.embeddings.token.weight", "pooler.bias"]),
    ),
    mistakes=(
        Mistake(
            "names only",
            _missing_names,
            "you report names that the pre-trained model does not have. A name that fits says nothing about the "
            "numbers, and the pooler is there under another name",
        ),
        Mistake(
            "shapes only",
            _shapes_only,
            "you compare shapes: a random tensor has the right shape too. Compare the entries",
        ),
        Mistake(
            "the pooler forgotten",
            _encoder_only,
            "you look at the encoder only: the pooler is to be copied as well, and it is what a careless load loses",
        ),
        Mistake(
            "the head too",
            lambda network, pretrained: sorted(
                [*not_copied(network, pretrained), *(name for name in network if name.startswith("classifier."))]
            ),
            "you report the classifier as well: it is new on purpose, nothing pre-trained belongs there",
        ),
        Mistake(
            "one equal entry suffices",
            _any_entry,
            "you call a tensor copied when one entry agrees; all of them must",
        ),
    ),
    hints=(
        "Go through the names of `network`. Which of them have a counterpart in `pretrained`, and under which name?",
        "Encoder: the same name. Pooler: with `nsp.` in front. Classifier: none. Then compare the two arrays.",
        "`np.array_equal(network[name], pretrained[old])` says whether all entries agree; `sorted` orders the names.",
    ),
)

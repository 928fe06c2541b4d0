"""The model card: README.md with what a stranger must know before using a model (Mitchell et al. 2019)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mlmkit.errors import UserError
from mlmkit.history import Evaluation, History
from mlmkit.model import BertForPreTraining
from mlmkit.tokenizer import MASK, Tokenizer

CURVE = "curve.png"


def model_card(
    model: BertForPreTraining,
    tokenizer: Tokenizer,
    name: str,
    history: History | None = None,
    license: str | None = None,
    language: str | None = "en",
) -> str:
    """Write a model card in Markdown, with the front matter in YAML that the Hugging Face hub reads.

    Args:
        model: its size is told.
        tokenizer: its vocabulary is told.
        name: of the model.
        history: of the run that made it; without one the card says that nothing is known of the training.
        license: short name, such as "cc-by-4.0"; None: there is none.
        language: ISO 639 code of two or three letters; None for an invented language.

    Raises:
        UserError: license or language is no such code.
    """
    license = _checked(license, language)
    if history is not None and _invented(history):
        language = None
    measured = history if history is not None and history.evaluations else None
    sections = [
        _front_matter(name, measured, license, language),
        _what_it_is(model, tokenizer, name, history),
        _unknown() if history is None else _data(history) + "\n" + _training(history),
        _results(measured) if measured else "",
        _use(name, measured),
        _limits(history),
        _license(license),
    ]
    return "\n".join(section for section in sections if section)


def _checked(license: str | None, language: str | None) -> str | None:
    license = license.lower() if license else None
    if license and not re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", license):
        raise UserError(f"a license is given by its short name, such as mit or cc-by-4.0, got {license!r}")
    if language and not re.fullmatch(r"[a-z]{2,3}", language):
        raise UserError(
            f"a language is given by its ISO 639 code of two or three letters, such as en, got {language!r}"
        )
    return license


def final(history: History) -> Evaluation:
    """The evaluation of the weights that a run leaves: the best one where it stops early, else the last."""
    return history.best if history.config["train"]["patience"] is not None else history.last


def _invented(history: History) -> bool:
    return history.baselines.mlm_floor is not None or str(history.corpus["name"]).startswith("exact:")


def _continued(history: History) -> bool:
    return history.config.get("start", {}).get("checkpoint") is not None


def _nsp(history: History) -> bool:
    return float(history.config["train"]["nsp_weight"]) > 0


def corpus_name(history: History) -> str:
    """The sources of a run without the folders of the machine that it ran on."""
    parts = str(history.corpus["name"]).split(" + ")
    return " + ".join(part if part.startswith("hf:") else Path(part).name for part in parts)


# --- front matter ---------------------------------------------------------------------------------------------


def _front_matter(name: str, history: History | None, license: str | None, language: str | None) -> str:
    """What the hub reads: search, license, the widget of the page, the table of results."""
    fields: dict[str, Any] = {
        "license": license,
        "language": language,
        "library_name": "transformers",
        "pipeline_tag": "fill-mask",
        "tags": ["bert", "masked-lm", *(["next-sentence-prediction"] if history and _nsp(history) else []), "mlmkit"],
        "model-index": [{"name": name, "results": _measured(history)}] if history else None,
    }
    known = {key: value for key, value in fields.items() if value is not None}
    return "\n".join(["---", *_yaml(known), "---", ""])


def _yaml(value: Any) -> list[str]:
    """Lines of YAML; strings and numbers are written as in JSON, which is YAML, so that no name breaks the block.

    >>> _yaml({"name": "a: b", "tags": ["x", {"y": 1, "z": 2}]})
    ['name: "a: b"', 'tags:', '  - "x"', '  - y: 1', '    z: 2']
    """
    if not isinstance(value, dict | list):
        return [json.dumps(value, ensure_ascii=False)]
    lines: list[str] = []
    for key, inner in value.items() if isinstance(value, dict) else ((None, item) for item in value):
        first, *rest = _yaml(inner)
        if key is None:
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
        elif isinstance(inner, dict | list):
            lines += [f"{key}:", *(f"  {line}" for line in (first, *rest))]
        else:
            lines.append(f"{key}: {first}")
    return lines


def _measured(history: History) -> list[dict[str, Any]]:
    """Metrics of the validation part as the hub lists them."""
    found, corpus = final(history), corpus_name(history)
    dataset = {"name": f"{corpus}, validation part", "type": re.sub(r"[^\w.-]+", "-", corpus), "split": "validation"}
    tasks = [
        ("fill-mask", "Masked language modeling", "MLM", found.mlm_loss, found.mlm_accuracy),
        ("text-classification", "Next-sentence prediction", "NSP", found.nsp_loss, found.nsp_accuracy),
    ]
    return [
        {
            "task": {"type": kind, "name": title},
            "dataset": dataset,
            "metrics": [
                {"type": "loss", "value": round(loss, 4), "name": f"{short} loss (nats)"},
                {"type": "accuracy", "value": round(accuracy, 4), "name": f"{short} accuracy"},
            ],
        }
        for kind, title, short, loss, accuracy in tasks
        if short == "MLM" or _nsp(history)
    ]


# --- sections -------------------------------------------------------------------------------------------------


def _table(*rows: tuple[object, ...]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = ("| " + " | ".join(map(str, row)) + " |\n" for row in rows)
    return head + "|---" * len(rows[0]) + "|\n" + "".join(body)


def _what_it_is(model: BertForPreTraining, tokenizer: Tokenizer, name: str, history: History | None) -> str:
    size, count = model.config, model.num_parameters()
    cutter = tokenizer.backend.normalizer
    case = "uncased" if cutter is not None and cutter.normalize_str("A") == "a" else "cased"
    extras = "" if size.tie_word_embeddings else " The decoder has a matrix of its own."
    extras += "" if size.hidden_act == "gelu" else f" The activation is {size.hidden_act}."
    return (
        f"# {name}\n\n"
        f"A BERT ({case}) of {_large(count)} parameters{_trained_with(history)}, "
        f"in the format of `transformers`, written by mlmkit.{extras}\n\n"
    ) + _table(
        ("layers", "hidden size", "heads", "feed-forward", "positions", "tokens in the vocabulary"),
        (
            size.num_hidden_layers,
            size.hidden_size,
            size.num_attention_heads,
            size.intermediate_size,
            size.max_position_embeddings,
            f"{tokenizer.vocab_size:,}",
        ),
    )


def _trained_with(history: History | None) -> str:
    if history is None:
        return " with heads for masked words and for the relation of two sentences"
    further = " further" if _continued(history) else ""
    return f", pre-trained{further} with masked language modeling" + " and next-sentence prediction" * _nsp(history)


def _unknown() -> str:
    return (
        "## Data and training\n\n"
        "No record of the training came with this export: what text the model has seen, and how well it predicts, "
        "is not known here. If it was made from another checkpoint, that one's card tells.\n"
    )


def _data(history: History) -> str:
    report = history.corpus["report"]
    rows = [
        (part, *(f"{report[unit][part]:,}" for unit in ("documents", "sentences", "words")))
        for part in report["documents"]
    ]
    overlap = report["overlap"].get("validation")
    clean = "" if _invented(history) else " Similar documents lie in the same part."
    clean += f" {overlap:.1%} of the 8-grams of the validation part also occur in the training part." if overlap else ""
    return f"## Data\n\n`{corpus_name(history)}`, fingerprint `{history.corpus['fingerprint']}`.{clean}\n\n" + _table(
        ("part", "documents", "sentences", "words"), *rows
    )


def _training(history: History) -> str:
    train, masking, data = (history.config[section] for section in ("train", "masking", "data"))
    done = final(history) if history.evaluations else None
    rows: list[tuple[object, ...]] = [
        ("setting", "value"),
        ("started from", _start(history)),
        ("masking", f"{masking['rate']:.0%} of the {masking['unit']}s, of these {_fates(masking)}"),
        ("longest pair", f"{data['max_length']} tokens"),
        ("updates", f"{done.step:,} of {train['batch_size']} pairs" if done else "not recorded"),
        ("tokens seen", f"{_large(done.tokens)}, repetitions counted" if done else "not recorded"),
        ("learning rate", f"{train['lr']:g}, {train['warmup_steps']:,} updates of warm-up, then linearly to 0"),
        ("AdamW", f"β {train['beta1']:g} and {train['beta2']:g}, weight decay {train['weight_decay']:g}"),
        ("weight of the NSP loss", f"{train['nsp_weight']:g}"),
        ("seed", train["seed"]),
        ("hardware", _hardware(history.hardware)),
        ("time", _duration(done.seconds) if done else "not recorded"),
        ("state of the run", history.status),
        ("versions", ", ".join(f"{package} {version}" for package, version in history.versions.items())),
    ]
    return "## Training\n\n" + _table(*rows)


def _start(history: History) -> str:
    if not _continued(history):
        return "random weights"
    checkpoint = Path(history.config["start"]["checkpoint"])
    named = len(checkpoint.parts) <= 2 and not checkpoint.is_absolute()  # google-bert/bert-base-uncased
    return f"`{checkpoint if named else checkpoint.name}`"


def _fates(masking: dict[str, Any]) -> str:
    return f"{masking['mask']:.0%} hidden, {masking['random']:.0%} replaced at random, {masking['keep']:.0%} kept"


def _hardware(found: dict[str, Any]) -> str:
    if not found:
        return "not recorded"
    device = found["cpu"] if found["device"] == "cpu" else found["device"]
    threads = f", threads: {found['threads']}" if found["device"] == "cpu" else ""
    return f"{device}{threads}, {found['precision']}"


def _duration(seconds: float) -> str:
    """A time as one says it.

    >>> _duration(42.4), _duration(289), _duration(36_000)
    ('42 s', '5 min', '10.0 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _results(history: History) -> str:
    found, base = final(history), history.baselines
    mlm: list[tuple[object, ...]] = [
        ("masked language modeling", "loss (nats)"),
        ("all tokens alike, ln V", f"{base.uniform:.3f}"),
        ("frequencies of the training text", f"{base.unigram_cross_entropy:.3f}"),
        ("table of neighboring tokens", f"{base.bigram_cross_entropy:.3f}"),
        ("**this model**", f"**{found.mlm_loss:.3f}**"),
    ]
    nsp: list[tuple[object, ...]] = [
        ("next-sentence prediction", "loss (nats)", "accuracy"),
        ("a coin", f"{base.coin:.3f}", "50.0%"),
        ("**this model**", f"**{found.nsp_loss:.3f}**", f"**{found.nsp_accuracy:.1%}**"),
    ]
    if base.mlm_floor is not None:
        mlm.append(("the best possible", f"{base.mlm_floor:.3f}"))
    if base.nsp_floor is not None and base.nsp_optimum is not None:
        nsp.append(("the best possible", f"{base.nsp_floor:.3f}", f"{base.nsp_optimum:.1%}"))
    untrained = "\nThe sentence head was not trained in this run"
    untrained += ".\n" if _continued(history) else ": what it answers means nothing.\n"
    return (
        "## Results\n\nOn the validation part, which training has not seen. At "
        f"{found.mlm_accuracy:.1%} of the selected positions the true token is the most probable one.\n\n"
        + _table(*mlm)
        + ("\n" + _table(*nsp) if _nsp(history) else untrained)
        + f"\n![Held-out losses between their baselines]({CURVE})\n"
    )


def _use(name: str, history: History | None) -> str:
    head = "The sentence head" if history and _nsp(history) else "Where it was trained, the sentence head"
    return f"""## How to use it

```python
from transformers import AutoModelForPreTraining, AutoTokenizer, pipeline

folder = {json.dumps(name, ensure_ascii=False)}  # this folder, or its name on the hub
pipeline("fill-mask", folder)("Write {MASK} where a word is to be predicted.")
AutoModelForPreTraining.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
```

With mlmkit: `model, tokenizer = mlmkit.load(folder)`. {head} gives class 0 to a B that follows A, and class 1
to a B from another document.
"""


def _limits(history: History | None) -> str:
    lines = []
    if history is not None and _invented(history):
        lines.append("Its language is invented and small: it knows nothing about any language that people speak.")
    elif history is not None:
        words = history.corpus["report"]["words"].get("train", 0)
        seen = "It went on from another checkpoint with a text of" if _continued(history) else "Its training text has"
        lines.append(f"{seen} {_large(words)} words. The results above hold for held-out text from the same source.")
    lines += [
        "It predicts words; it does not know what is true, and it repeats what its text says about people.",
        f"Several {MASK} in one text are predicted independently of each other.",
        "It is a pre-trained encoder: for a task it needs fine-tuning, and a test on that task.",
    ]
    return "## Limits\n\n" + "".join(f"- {line}\n" for line in lines)


def _license(license: str | None) -> str:
    given = (
        f"The model is given under `{license}`." if license else "No license was given for this model: ask its maker."
    )
    return f"## License\n\n{given} The text that it was trained on keeps the licenses of its sources.\n"


def _large(number: int) -> str:
    """A count as one says it.

    >>> _large(950), _large(1_046_000), _large(110_106_428)
    ('950', '1.0 million', '110.1 million')
    """
    return f"{number / 1e6:.1f} million" if number >= 1e6 else f"{number:,}"

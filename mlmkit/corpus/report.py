"""What a corpus contains and what was left out, as numbers and as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class CorpusReport:
    """Counts of a corpus: words are runs of letters, digits and underscores.

    `dropped_exact` and `dropped_near` count sentences; `biggest_cluster` is its share of all words;
    `overlap` is the share of the held-out word 8-grams that occur in training, estimated from one 8-gram in
    `sampling`.
    """

    documents: dict[str, int]
    sentences: dict[str, int]
    words: dict[str, int]
    dropped_exact: int
    dropped_near: int
    clusters: int
    biggest_cluster: float
    overlap: dict[str, float]
    sampling: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are stored beside the corpus."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{'split':<12}{'documents':>11}{'sentences':>11}{'words':>12}{'8-grams also in train':>23}"]
        for name in self.documents:
            share = f"{self.overlap[name]:.2%}" if name in self.overlap else ""
            lines.append(
                f"{name:<12}{self.documents[name]:>11,}{self.sentences[name]:>11,}{self.words[name]:>12,}{share:>23}"
            )
        lines.append(
            f"dropped sentences: {self.dropped_exact:,} repeated, {self.dropped_near:,} in near-duplicate paragraphs"
        )
        lines.append(
            f"clusters of similar documents: {self.clusters:,}, "
            f"the biggest holds {self.biggest_cluster:.1%} of the words"
        )
        return "\n".join(line.rstrip() for line in lines)

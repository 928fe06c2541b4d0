"""Where documents come from: sources, duplicate removal, a split that keeps similar documents together."""

from mlmkit.corpus.build import Corpus, load_corpus, parts_of, sample_corpus
from mlmkit.corpus.clusters import ngram_overlap
from mlmkit.corpus.report import CorpusReport
from mlmkit.corpus.store import cache_root

__all__ = ["Corpus", "CorpusReport", "cache_root", "load_corpus", "ngram_overlap", "parts_of", "sample_corpus"]

"""A corpus on disk, the samples it holds and their images."""

from geozero.corpus.sample import Sample
from geozero.corpus.store import Corpus, CorpusWriter

__all__ = ["Corpus", "CorpusWriter", "Sample"]

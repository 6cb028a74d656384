"""Compressors: one published idea a file. The folder is the table of contents; ``registry`` has the names.

Files that start with an underscore hold what methods share: units of a context (``_layout``), the allocation of a
token budget (``_allocate``), the helper base for methods that score sentences (``_extractive``), checks of options
(``_options``) and whole passages in order of their scores (``_groups``).
"""

from ragzip.compressors._extractive import Sentences, SentenceScorer

__all__ = ["SentenceScorer", "Sentences"]

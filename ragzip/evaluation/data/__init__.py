"""Sets of questions to evaluate on, from files, folders, the data folder and the Hugging Face hub, as one type.

>>> from ragzip.evaluation.data import set_names
>>> "hotpotqa" in set_names()
True
"""

from ragzip.evaluation.data._folder import data_dir
from ragzip.evaluation.data._open import Source, open_set, set_names, sources

__all__ = ["Source", "data_dir", "open_set", "set_names", "sources"]

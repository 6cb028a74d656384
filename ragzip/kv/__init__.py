"""The key-value cache of a prompt, made smaller once the prompt was read; one published idea a file.

What is evicted is gone: the cache holds fewer positions, or fewer bits a number, and ``Generation.kv_bytes`` was
measured on it. Files that start with an underscore hold what the methods share: what a layer shows them (``_seen``),
positions kept (``_eviction``); ``session`` is how a generator works with them.
"""

from ragzip.kv._eviction import Eviction
from ragzip.kv._methods import check_methods
from ragzip.kv._seen import Seen
from ragzip.kv.session import KVSession

__all__ = ["Eviction", "KVSession", "Seen", "check_methods"]

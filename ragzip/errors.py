"""Everything ragzip raises on purpose.

The tree::

    RagzipError
    ├── UsageError            the call itself is wrong: an empty question, a missing file
    ├── ConfigError           a component, YAML file or override that cannot be built
    │   └── StackError        parts that do not fit: soft output before a text-only part
    ├── ModelError            a model that is not here, or weights that are not what they should be
    ├── IngestError           a source that cannot be read at all
    ├── StoreError           an index that cannot be opened or written
    │   ├── StoreDamaged      files that do not match the manifest
    │   └── StoreMismatch     another format version, model or tokenizer
    └── GenerationError       a generator or its server that cannot answer
        └── PromptTooLong     this prompt, ever: it does not fit into the window or the memory

Each message says where, what, and what to do; the last part stands in ``hint``, so that the command line can
print it apart.
"""

from __future__ import annotations


class RagzipError(Exception):
    """Root of all errors that ragzip raises on purpose.

    Args:
        message: Where and what, in one line.
        hint: What to do about it, in one line, or "".
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.hint, self.__dict__))


def _rebuild(cls: type[RagzipError], message: str, hint: str, state: dict[str, object]) -> RagzipError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    error.message, error.hint = message, hint
    return error


class UsageError(RagzipError):
    """The call is wrong: an empty question, a path that does not exist, an option outside its range."""

    exit_code = 2


class ConfigError(RagzipError):
    """A configuration that cannot be built. The message starts with the path to the value.

    Args:
        path: Where in the configuration, as ``compressors.0.threshold``.
        problem: What is wrong there.
        hint: What to do.
        source: The file it was read from, or "".
        line: Line in that file, from 1, or 0 where unknown.
    """

    exit_code = 2

    def __init__(self, path: str, problem: str, *, hint: str = "", source: str = "", line: int = 0) -> None:
        self.path, self.problem, self.source, self.line = path, problem, source, line
        where = f"{source}:{line}: " if source and line else f"{source}: " if source else ""
        if not source and line:
            where = f"line {line}: "
        super().__init__(f"{where}{path}: {problem}" if path else f"{where}{problem}", hint=hint)


class StackError(ConfigError):
    """Parts that do not fit together; found before any weight is loaded."""


class ModelError(RagzipError):
    """A model that is not here, or whose files are not what they should be."""


class IngestError(RagzipError):
    """A source that cannot be read."""


class StoreError(RagzipError):
    """An index that cannot be opened or written."""


class StoreDamaged(StoreError):
    """Files of an index that are missing or do not match its manifest."""


class StoreMismatch(StoreError):
    """An index of another format version, or made with another model."""


class GenerationError(RagzipError):
    """A generator that cannot answer: a prompt beyond its window, a server that does not respond."""


class PromptTooLong(GenerationError):
    """A prompt that does not fit into the generator's window or this machine's memory; asking again does not help."""

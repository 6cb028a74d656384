"""How vectors are stored and searched, said in one line: ``pca192,float8``, ``pq48+float16``, ``ivf256,pq96x4+float8``.

Before the ``+`` stands what is searched, in memory; after it what is kept of every passage on the disk, from which the
shortlist is scored again (the two stages of JPQ's and RaBitQ's users; PCA and float8: arXiv 2505.00105). A line
without a ``+`` keeps one thing, and scans it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from ragzip.errors import ConfigError

AUTO = "auto"
LEAST_ROWS = 1000
"""Passages below which vectors stay float32: nothing can be learned from fewer, and nothing is gained by it."""

_LEAST_LIST = 39  # vectors a list, or FAISS calls the lists poorly learned
_PROBED = 8  # unless told otherwise one list in so many is searched
_LEAST_PROBED = 12
_KNOWN = "float32, float16, float8, int8, pq48"
_ROWS = re.compile(r"(?:dims=(\d+),)?(?:pca(\d+),)?(float32|float16|float8|int8|pq(\d+))", re.ASCII)
_STRUCTURE = re.compile(
    r"(?:(ivf|hnsw)(\d+)(?::(\d+))?(?:,(?=.)|$))?(float32|float16|int8|pq\d+(?:x4)?|rabitq|)", re.ASCII
)
_FAISS = {"": "Flat", "float32": "Flat", "float16": "SQfp16", "int8": "SQ8", "rabitq": "RaBitQ"}
_HINT = (
    "[dims=N,][pcaN,]float32|float16|float8|int8|pqN; or what is searched before a plus:"
    " [ivfN[:M],|hnswN,]float32|float16|int8|pqN|pqNx4|rabitq, as in pq48+float16."
)


@dataclass(frozen=True, slots=True)
class Rows:
    """What is kept of each passage's vector.

    Attributes:
        dims: The first so many numbers, scaled to length 1 again (Matryoshka); None for all.
        pca: Then so many principal components; None for none.
        code: What a number becomes: ``float32``, ``float16``, ``float8`` (e4m3), ``int8``; or ``pq``, a byte for
            several of them.
        pieces: Bytes of ``pq``, else 0.
    """

    dims: int | None = None
    pca: int | None = None
    code: str = "float32"
    pieces: int = 0

    def __str__(self) -> str:
        parts = (self.dims and f"dims={self.dims}", self.pca and f"pca{self.pca}", f"{self.code}{self.pieces or ''}")
        return ",".join(part for part in parts if part)

    @property
    def plain(self) -> bool:
        """Whether these are the vectors as they come."""
        return self == Rows()

    def width(self, dimensions: int) -> int:
        """Numbers a vector that are left."""
        return self.pca or self.dims or dimensions

    def bytes(self, dimensions: int) -> int:
        """Bytes a passage."""
        each = {"float32": 4, "float16": 2, "float8": 1, "int8": 1, "pq": 0}[self.code]
        return self.pieces or each * self.width(dimensions)

    @property
    def least(self) -> int:
        """Passages from which on vectors are kept like this; there are float32 ones until then."""
        return max(LEAST_ROWS, self.pca or 0) if not self.plain else 0


@dataclass(frozen=True, slots=True)
class Structure:
    """What finds the shortlist.

    Attributes:
        form: ``ivf``, ``hnsw``, or "" for all of them in a row.
        size: Lists of ``ivf``, neighbours of ``hnsw``, else 0.
        code: ``float32``, ``float16``, ``int8``, ``pqN``, ``pqNx4``, ``rabitq``; "" is float32.
        probed: How many lists of ``ivf`` a question searches; 0 for one in eight, and at least 12.
    """

    form: str
    size: int
    code: str
    probed: int = 0

    def __str__(self) -> str:
        form = f"{self.form}{self.size}" + (f":{self.probed}" if self.probed else "")
        return ",".join(part for part in (self.form and form, self.code) if part)

    @property
    def probes(self) -> int:
        """Lists of ``ivf`` that a question searches."""
        return self.probed or min(self.size, max(_LEAST_PROBED, self.size // _PROBED))

    @property
    def pieces(self) -> int:
        """Bytes of ``pqN``, or half-bytes of ``pqNx4``; else 0."""
        return int(self.code[2:].removesuffix("x4")) if self.code.startswith("pq") else 0

    @property
    def least(self) -> int:
        """Passages from which on there is one; they are scanned until then."""
        return max(LEAST_ROWS, _LEAST_LIST * self.size if self.form == "ivf" else 0)

    def factory(self, width: int) -> str:
        """For ``faiss.index_factory``."""
        code = f"PQ{self.code[2:]}{'fs' if self.code.endswith('x4') else ''}" if self.pieces else _FAISS[self.code]
        found = f"{self.form.upper()}{self.size},{code}" if self.form else code
        # RaBitQ expects a random rotation, and does not make it itself.
        return f"RR{width},{found}" if self.code == "rabitq" else found


@dataclass(frozen=True, slots=True)
class Storage:
    """One line, taken apart.

    Attributes:
        rows: What the shards hold.
        structure: What is searched instead; None where the shards are scanned.
        auto: Whether the structure hangs on the number of passages: exact below 100,000, compressed above.
    """

    rows: Rows = Rows()
    structure: Structure | None = None
    auto: bool = False

    def __str__(self) -> str:
        if self.auto:
            return AUTO
        return f"{self.structure}+{self.rows}" if self.structure else str(self.rows)

    def indexed(self, passages: int) -> bool:
        """Whether so many passages are searched through a FAISS index, and not by a scan."""
        return self.auto or (self.structure is not None and passages >= self.structure.least)

    def check(self, dimensions: int) -> None:
        """Makes sure that vectors of this width can be stored so.

        Raises:
            ConfigError: They cannot.
        """
        width = dimensions
        for name, value in (("dims", self.rows.dims), ("pca", self.rows.pca)):
            if value is not None and not 1 <= value < width:
                raise _wrong(self, f"{name} of {value} where vectors are {width} wide", "It must be less than that.")
            width = value or width
        form = self.structure
        for pieces in (self.rows.pieces, form.pieces if form else 0):
            if pieces and width % pieces:
                fit = max(n for n in range(1, min(pieces, width) + 1) if width % n == 0)
                raise _wrong(self, f"{pieces} pieces do not divide vectors of {width}", f"Use a divisor, as pq{fit}.")


@lru_cache(maxsize=64)
def parse(line: str) -> Storage:
    """A line as it is meant; ``str`` gives the same line back, with what was left out.

    ``rabitq``, ``pqNx4``, ``hnswN`` and ``ivfN,...`` search but keep nothing to add to: without a ``+`` they stand for
    ``+float32``.

    Raises:
        ConfigError: It says no storage.
    """
    text = "".join(line.split()).lower()
    if text == AUTO:
        return Storage(auto=True)
    before, plus, after = text.rpartition("+")
    alone = _ROWS.fullmatch(text)
    if alone:
        return Storage(_rows(alone, line))
    rows = _ROWS.fullmatch(after if plus else "float32")
    form = _STRUCTURE.fullmatch(before if plus else text)
    if rows is None or form is None or not form.group(0):
        raise _wrong(line, "is no storage", _HINT)
    kind, size, probed, code = form.groups()
    structure = Structure(kind or "", int(size or 0), code, int(probed or 0))
    if probed is not None and not (kind == "ivf" and 1 <= structure.probed <= structure.size):
        raise _wrong(line, "searches as many lists as there are not", "As in ivf1024:256, 256 of 1024 lists.")
    _check_structure(structure, line)
    return Storage(_rows(rows, line), structure)


def _rows(match: re.Match[str], line: str) -> Rows:
    dims, pca, code, pieces = match.groups()
    numbers = [None if value is None else int(value) for value in (dims, pca, pieces)]
    if 0 in numbers:
        raise _wrong(line, "has a zero", _HINT)
    return Rows(numbers[0], numbers[1], "pq" if pieces else code, numbers[2] or 0)


def _check_structure(structure: Structure, line: str) -> None:
    if structure.form == "hnsw" and structure.code not in ("", "float32", "float16", "int8"):
        raise _wrong(line, f"hnsw does not go with {structure.code}", "Use hnsw32,int8 or hnsw32,float16.")
    least, most = {"hnsw": (4, 128), "ivf": (2, 65_536)}.get(structure.form, (0, 0))
    if not least <= structure.size <= most:
        raise _wrong(line, f"{structure.form} must have {least} to {most}, not {structure.size}", "Try hnsw32, ivf256.")
    if structure.code.startswith("pq") and not structure.pieces:
        raise _wrong(line, "has a zero", _HINT)
    if not structure.form and structure.code == "float32":
        raise _wrong(line, "searches float32 vectors, and keeps others", f"Keep one of {_KNOWN}, without a plus.")


def _wrong(line: object, problem: str, hint: str) -> ConfigError:
    return ConfigError("storage", f"{str(line)!r}: {problem}", hint=hint)

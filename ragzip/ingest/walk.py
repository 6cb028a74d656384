"""Path arguments to files: folders, globs, links, and what is never opened.

Folders are walked in sorted order. Hidden files and folders, ``node_modules``, ``__pycache__`` and virtual
environments are left out without a word, as tools for source trees do; so are links to folders. A link to a file is
followed as long as it stays inside the folder given.
"""

# Strings instead of Path: for speed over many files, and because Path.resolve() forgets the names of links.
# ruff: noqa: PTH100, PTH110, PTH112, PTH116, PTH117, PTH118, PTH122, PTH206
from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ragzip.errors import UsageError

STDIN = "-"
TOPICS = "python:topics"
_SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", ".git", ".venv"})
_GLOB = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True)
class Found:
    """A file to read, or the reason why not.

    Attributes:
        path: Absolute.
        root: The entry of ``roots`` it was found under.
        named: Given by name (or by a glob with its suffix), so read as text whatever its suffix.
        problem: Why it cannot be read, or "".
        real: The path without links: what makes two paths the same file.
    """

    path: str
    root: str
    named: bool = False
    problem: str = ""
    real: str = ""


def roots(paths: Sequence[str]) -> tuple[str, ...]:
    """What each path argument resolves to, in order: absolute with forward slashes; ``-`` and ``python:topics`` stay.

    Everything ``load`` yields carries one of these as its ``root``: what an index holds of a root and no longer
    comes is gone.
    """
    return tuple(path if path in (STDIN, TOPICS) else _shown(os.path.abspath(path)) for path in paths)


def check_paths(paths: Sequence[str]) -> None:
    """Finds wrong arguments before anything runs.

    Raises:
        UsageError: No path at all, a path that does not exist, a glob that matches nothing.
    """
    if not paths:
        raise UsageError("no path to read", hint="Name files, folders or globs, or - for standard input.")
    for path in paths:
        if path in (STDIN, TOPICS) or _exists(path):
            continue
        if not path or not _GLOB.search(path):
            raise UsageError(f"{path!r}: no such file or folder", hint="Check the spelling and where you are.")
        if next(_glob(path, path, frozenset()), None) is None:
            raise UsageError(f"{path!r}: nothing matches", hint="** is for folders of any depth: 'docs/**/*.md'.")


def find(paths: Sequence[str], exclude: Sequence[Path] = ()) -> Iterator[Found]:
    """The files behind the path arguments, each once however many paths or links lead to it."""
    out = frozenset(os.path.realpath(path) for path in exclude)
    seen: set[str] = set()
    for path, root in zip(paths, roots(paths), strict=True):
        if path in (STDIN, TOPICS):
            if path not in seen:
                seen.add(path)
                yield Found(path, root)
            continue
        for found in _find(path, root, out):
            if found.real not in seen and found.real not in out:
                seen.add(found.real)
                yield found


def show(path: str, base: str) -> str:
    r"""A path as a source: relative to the base where inside, forward slashes, bytes that are no text as ``\xe9``.

    What lies inside has one name, also where the way to it goes through a link outside.
    """
    within = base if base.endswith(os.sep) else base + os.sep
    if not path.startswith(within):
        folder, name = os.path.split(path)
        real = os.path.join(os.path.realpath(folder), name)  # the name of a link to a file stays
        path = real if real.startswith(within) else path
    return _shown(os.path.relpath(path, base) if path.startswith(within) else path)


def _shown(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace(os.sep, "/")


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path)
    except ValueError:  # a NUL inside
        return False


def _find(path: str, root: str, out: frozenset[str]) -> Iterator[Found]:
    full = os.path.abspath(path)
    if _exists(path):
        if os.path.isdir(full):
            yield from _walk(full, root, out)
        else:
            yield _classify(full, root, named=True)
    elif _GLOB.search(path):
        yield from _glob(path, root, out)
    else:
        yield Found(full, root, problem="no such file or folder", real=full)


def _walk(top: str, root: str, out: frozenset[str], *, depth: int = -1, hidden: bool = False) -> Iterator[Found]:
    """Files below a folder, sorted; links to files after everything else, so that real names win."""
    real_top = os.path.realpath(top)
    links: list[str] = []
    stack: list[tuple[str, int]] = [(top, 0)]
    while stack:
        folder, level = stack.pop()
        # No link is entered, so below the top the real path needs no look at the disk.
        real = real_top + folder[len(top) :]
        if real in out:
            continue
        try:
            with os.scandir(folder) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            yield Found(folder, root, problem=say(error, "folder"), real=real)
            continue
        if level and any(entry.name == "pyvenv.cfg" for entry in entries):
            continue
        inner: list[tuple[str, int]] = []
        for entry in entries:
            if entry.name in _SKIPPED_FOLDERS or (entry.name.startswith(".") and not hidden):
                continue
            if entry.is_symlink():
                links.append(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                if depth < 0 or level < depth:
                    inner.append((entry.path, level + 1))
            else:
                yield _classify(entry.path, root, real=os.path.join(real, entry.name))
        stack.extend(reversed(inner))
    for link in links:
        target = os.path.realpath(link)
        inside = target.startswith(real_top.rstrip(os.sep) + os.sep) or target == real_top
        if not inside and os.path.exists(target):
            yield Found(link, root, problem="a link out of the folder", real=link)
        elif not os.path.isdir(target):  # a folder inside is walked under its own name
            yield _classify(link, root, real=target)


def _glob(pattern: str, root: str, out: frozenset[str]) -> Iterator[Found]:
    """Files that match a glob; folders that match are not entered, and links to folders are not followed."""
    parts = os.path.normpath(pattern).split(os.sep)  # as written: the working directory may have brackets in its name
    fixed = next(index for index, part in enumerate(parts) if _GLOB.search(part))
    top = os.path.abspath(os.sep.join(parts[:fixed]) or (os.sep if os.path.isabs(pattern) else os.curdir))
    rest = parts[fixed:]
    if not os.path.isdir(top):
        return
    tests = [None if part == "**" else re.compile(fnmatch.translate(part)) for part in rest]
    # A suffix written out in the pattern names the format as a file name does.
    suffix = os.path.splitext(rest[-1])[1]
    named = bool(suffix) and not _GLOB.search(suffix)
    depth = -1 if "**" in rest else len(rest) - 1
    offset = len(top.rstrip(os.sep)) + 1
    for found in _walk(top, root, out, depth=depth, hidden=any(part.startswith(".") for part in rest)):
        if _matches(tests, found.path[offset:].split(os.sep)):
            yield replace(found, named=named)


def _matches(tests: list[re.Pattern[str] | None], parts: list[str]) -> bool:
    """Whether path components match a glob's; None (``**``) stands for any number of them."""
    reached = {0}
    for part in parts:
        # After a component: stay on a ** or step past a test that it meets.
        here = _closure(tests, reached)
        reached = {at for at in here if at < len(tests) and tests[at] is None}
        reached |= {at + 1 for at in here if at < len(tests) and (t := tests[at]) is not None and t.match(part)}
    return len(tests) in _closure(tests, reached)


def _closure(tests: list[re.Pattern[str] | None], reached: set[int]) -> set[int]:
    out = set(reached)
    for at in range(len(tests)):
        if at in out and tests[at] is None:
            out.add(at + 1)
    return out


def _classify(path: str, root: str, *, named: bool = False, real: str = "") -> Found:
    real = real or os.path.realpath(path)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return Found(path, root, named, say(error, "file"), real)
    problem = "" if stat.S_ISREG(mode) else f"not a regular file ({kind(mode)})"
    return Found(path, root, named, problem, real)


def kind(mode: int) -> str:
    """What a file that is not regular is called."""
    kinds = (
        (stat.S_ISFIFO, "named pipe"),
        (stat.S_ISSOCK, "socket"),
        (stat.S_ISCHR, "device"),
        (stat.S_ISBLK, "device"),
        (stat.S_ISDIR, "folder"),
    )
    return next((name for test, name in kinds if test(mode)), "special file")


def say(error: OSError, what: str) -> str:
    """An operating system error as a reason, in one line."""
    if isinstance(error, PermissionError):
        return f"no permission to read this {what}"
    if isinstance(error, FileNotFoundError):
        return f"this {what} is gone, or a link that leads nowhere"
    return f"cannot read this {what}: {error.strerror or error}"

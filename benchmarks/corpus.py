"""Real text that every machine with Python has: the language reference and the standard library's docstrings."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from ragzip.ingest import Document, python_topics


def documents() -> Iterator[Document]:
    """The topics first, then one document a module: its docstrings, in the order of the file."""
    yield from python_topics()
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(path.parts):
            continue
        text = _docstrings(path)
        if len(text) > 200:
            yield Document(source=str(path.relative_to(library)), text=text, title=path.stem)


def _docstrings(path: Path) -> str:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    except (SyntaxError, ValueError):
        return ""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    return "\n\n".join(doc for node in nodes if (doc := ast.get_docstring(node)) and len(doc) > 40)


QUESTIONS = (
    "When is the __del__ method of an object called?",
    "What does the nonlocal statement do?",
    "How does a with statement call __enter__ and __exit__?",
    "What is the difference between a list and a tuple?",
    "What happens when an exception is raised in the finally clause?",
    "How are default parameter values evaluated?",
    "What does the yield expression return?",
    "Which names are bound by an import statement?",
    "How does slicing a sequence with a negative step work?",
    "What is the order of evaluation of expressions?",
)

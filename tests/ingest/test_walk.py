from __future__ import annotations

import io
import os
import socket
import sys
from pathlib import Path

import pytest

from ragzip.errors import UsageError
from ragzip.ingest import Document, Skipped, check_paths, load, roots
from ragzip.ingest.decode import Unreadable, open_regular
from tests.ingest.tools import documents, items, only, put, why


def sources(found: list) -> list[str]:
    return [item.source for item in found]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b.md", "a.txt", "sub/c.md", "sub/deep/d.md", "z/e.rst"):
        put(tmp_path, name, f"Text of {name}.")
    for name in (".hidden.md", ".git/x.md", "node_modules/x.md", "__pycache__/x.md", ".venv/x.md", "sub/.secret/x.md"):
        put(tmp_path, name, "never seen")
    put(tmp_path, "env/pyvenv.cfg", "home = /usr")
    put(tmp_path, "env/lib/x.md", "never seen")
    return tmp_path


def test_folder_is_sorted_and_leaves_out_what_is_hidden(tree):
    assert sources(documents(tree)) == ["a.txt", "b.md", "sub/c.md", "sub/deep/d.md", "z/e.rst"]


def test_same_file_by_many_paths_comes_once_and_under_the_first_root(tree):
    found = documents(tree, tree / "sub", tree, tree / "sub" / "c.md", f"{tree}/**/*.md")
    assert sorted(sources(found)) == ["a.txt", "b.md", "sub/c.md", "sub/deep/d.md", "z/e.rst"]
    by_source = {item.source: item.root for item in found}
    assert by_source["sub/c.md"] == (tree / "sub").as_posix()
    assert by_source["b.md"] == tree.as_posix()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.md", ["b.md"]),
        ("**/*.md", ["b.md", "sub/c.md", "sub/deep/d.md"]),
        ("sub/**/*.md", ["sub/c.md", "sub/deep/d.md"]),
        ("sub/**", ["sub/c.md", "sub/deep/d.md"]),
        ("*/*.md", ["sub/c.md"]),
        ("**/deep/*", ["sub/deep/d.md"]),
        ("[ab].*", ["a.txt", "b.md"]),
        ("?.md", ["b.md"]),
        (".git/*.md", [".git/x.md"]),
    ],
)
def test_globs(tree, pattern, expected):
    assert sources(documents(tree, f"{tree}/{pattern}")) == expected
    check_paths([f"{tree}/{pattern}"])


def test_file_whose_name_looks_like_a_glob(tmp_path):
    path = put(tmp_path, "notes[1].md", "One.")
    check_paths([str(path)])
    assert only(tmp_path, path).text == "One."


def test_sources_outside_the_base_are_absolute(tree):
    (document,) = load([str(tree / "b.md")], base=tree / "sub")
    assert document.source == (tree / "b.md").as_posix()


@pytest.mark.parametrize("path", ["gone.md", "gone/", "*.nothing", "**/nothing.md", "", "nul\0.md"])
def test_check_paths_names_what_is_missing(tree, path):
    with pytest.raises(UsageError, match=r"no such file|nothing matches") as caught:
        check_paths([f"{tree}/{path}" if path else ""])
    assert caught.value.hint


def test_check_paths_wants_a_path():
    with pytest.raises(UsageError, match="no path"):
        check_paths([])
    check_paths(["-", "python:topics"])


def test_roots_are_what_items_carry(tree, monkeypatch):
    monkeypatch.chdir(tree)
    paths = ["sub", "./a.txt", "*.md", "-", "python:topics"]
    here = tree.as_posix()
    assert roots(paths) == (f"{here}/sub", f"{here}/a.txt", f"{here}/*.md", "-", "python:topics")
    found = list(load(paths, base=tree, stdin=io.StringIO("Hello.")))
    assert {item.root for item in found} == set(roots(paths))


def test_exclude_is_never_entered(tree):
    found = documents(tree, tree, exclude=[tree / "sub", tree / "b.md"])
    assert sources(found) == ["a.txt", "z/e.rst"]
    assert documents(tree, tree, exclude=[tree]) == []


def test_unsupported_formats_are_listed(tmp_path):
    put(tmp_path, "a.md", "Text.")
    put(tmp_path, "b.png", b"\x89PNG\0")
    put(tmp_path, "Makefile", "all:")
    put(tmp_path, "README", "Read me.")
    found = {item.source: item for item in items(tmp_path)}
    assert isinstance(found["README"], Document)
    assert found["b.png"] == Skipped("b.png", "unsupported format .png", tmp_path.as_posix())
    assert found["Makefile"].reason == "unsupported format (no suffix)"


def test_a_name_makes_any_text_readable(tmp_path):
    code = put(tmp_path, "tool.py", "print('hi')\n")
    assert only(tmp_path, code).text == "print('hi')\n"
    assert only(tmp_path, f"{tmp_path}/*.py").text == "print('hi')\n"
    assert why(tmp_path, f"{tmp_path}/tool.*") == "unsupported format .py"
    assert why(tmp_path, put(tmp_path, "a.png", b"\x89PNG\r\n\0\0")) == "binary file"


def test_links(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    put(outside, "secret.md", "secret")
    (tree / "sub" / "up").symlink_to(tree)
    (tree / "sub" / "self").symlink_to(tree / "sub" / "self")
    (tree / "out.md").symlink_to(outside / "secret.md")
    (tree / "outer").symlink_to(outside)
    (tree / "aa-link.md").symlink_to(tree / "b.md")
    (tree / "kept.md").symlink_to(tree / ".hidden.md")
    (tree / "broken.md").symlink_to(tree / "nowhere.md")
    found = items(tree)
    texts = [item.source for item in found if isinstance(item, Document)]
    # Real names win over links; a link to a hidden file is the only way to it.
    assert texts == ["a.txt", "b.md", "sub/c.md", "sub/deep/d.md", "z/e.rst", "kept.md"]
    skipped = {item.source: item.reason for item in found if isinstance(item, Skipped)}
    assert skipped["out.md"] == skipped["outer"] == "a link out of the folder"
    assert "leads nowhere" in skipped["broken.md"]
    assert set(skipped) == {"out.md", "outer", "broken.md", "sub/self"}


def test_a_link_given_by_name_is_followed(tree, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    put(outside, "a.md", "Out.")
    (tree / "l").symlink_to(outside)
    assert sources(documents(tree, tree / "l")) == ["l/a.md"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_special_files_are_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.md")
    assert why(tmp_path, tmp_path / "pipe.md") == "not a regular file (named pipe)"
    assert why(tmp_path, tmp_path) == "not a regular file (named pipe)"
    with pytest.raises(Unreadable, match="named pipe"):  # would wait for a writer
        open_regular(str(tmp_path / "pipe.md"))
    assert why(tmp_path, "/dev/null") == "not a regular file (device)"


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no sockets in files here")
def test_sockets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind("s.md")
        assert why(tmp_path, "s.md") == "not a regular file (socket)"
    finally:
        sock.close()


def test_a_pipe_in_place_of_a_walked_file(tmp_path):
    put(tmp_path, "a.md", "one")
    path = put(tmp_path, "b.md", "two")
    stream = load([str(tmp_path)], base=tmp_path)
    assert next(stream).source == "a.md"
    path.unlink()
    os.mkfifo(path)
    assert "not a regular file" in next(stream).reason


def test_a_file_that_vanishes_during_the_walk(tmp_path):
    put(tmp_path, "a.md", "one")
    path = put(tmp_path, "b.md", "two")
    stream = load([str(tmp_path)], base=tmp_path)
    next(stream)
    path.unlink()
    assert "gone" in next(stream).reason


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads everything")
def test_no_permission(tmp_path):
    path = put(tmp_path, "a.md", "one")
    path.chmod(0)
    assert why(tmp_path, path) == "no permission to read this file"


def test_no_permission_for_whoever_runs_this(tmp_path, monkeypatch):
    path = put(tmp_path, "a.md", "one")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    assert why(tmp_path, tmp_path) == "no permission to read this folder"
    monkeypatch.setattr(os, "open", refuse)
    assert why(tmp_path, path) == "no permission to read this file"


def test_names_that_are_no_text(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.md")).write_text("One.")
    except OSError:
        pytest.skip("this file system wants UTF-8 names")
    (document,) = documents(tmp_path)
    assert document.source == r"caf\xe9.md"
    document.source.encode()


def test_too_big(tmp_path):
    path = put(tmp_path, "a.txt", "x" * 2000)
    assert why(tmp_path, path, max_bytes=1999).startswith("too big: ")
    assert only(tmp_path, path, max_bytes=2000).text == "x" * 2000


def test_keyboard_interrupt_gets_through(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("ragzip.ingest.loading.read_bytes", stop)
    with pytest.raises(KeyboardInterrupt):
        items(tmp_path, put(tmp_path, "a.md", "one"))


def test_any_other_exception_becomes_a_reason(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("ragzip.ingest.loading.read_html", fail)
    path = put(tmp_path, "a.html", "<p>x")
    assert why(tmp_path, path) == "cannot be read as .html: RuntimeError: first line"


def test_globs_where_the_working_directory_has_brackets(tmp_path, monkeypatch):
    here = tmp_path / "[2024] work"
    put(here, "docs/a.md", "Text.")
    put(here, "docs/b.md", "Text.")
    put(tmp_path, "2 work/docs/c.md", "Text.")
    monkeypatch.chdir(here)
    check_paths(["docs/*.md", "./d*/a.md", "../[[]2024] work/docs/*.md"])
    for pattern in ("docs/*.md", "./docs/[ab].md", "**/*.md", "docs/../docs/*.md"):
        assert [Path(item.source).name for item in load([pattern], base=here)] == ["a.md", "b.md"], pattern


def test_one_source_through_whatever_links_the_folder_is_reached(tmp_path):
    put(tmp_path, "real/docs/a.md", "Text.")
    put(tmp_path, "else/b.md", "Text.")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    base = tmp_path / "real"
    ways = [base / "docs", tmp_path / "link" / "docs", tmp_path / "link", tmp_path / "link" / "docs" / "a.md"]
    for way in ways:
        assert sources(list(load([str(way)], base=base))) == ["docs/a.md"]
    assert sources(list(load([str(tmp_path / "else")], base=base))) == [(tmp_path / "else/b.md").as_posix()]

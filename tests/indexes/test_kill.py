"""Killed at any moment, an index opens at its last commit, and the same run again ends where it would have."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from ragzip.errors import StoreError
from ragzip.indexes import Index, info, manifest, verify
from ragzip.indexes.jpq import quantizer
from ragzip.indexes.jpq.reader import TrainedCodes
from ragzip.indexes.multi_vector.reader import MultiVectors
from ragzip.indexes.text import searched_text
from ragzip.models.late_interaction import load_late_interaction
from tests.indexes.child import MODELS, SCENARIOS, after, before, models
from tests.indexes.tools import WordEncoder, content, found, make, run, start


@pytest.fixture(scope="module", autouse=True)
def made(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MODELS, str(models(tmp_path_factory.mktemp("models") / "all")))
        yield


def by_part(name: str, kb: Path) -> None:
    """What a retriever has of its own scores every passage, by what the index says of that passage alone."""
    with Index.open(kb) as index:
        if name == "jpq":
            learned = quantizer.load(Path(os.environ[MODELS], name, quantizer.FILE))
            asked = WordEncoder().encode(["amber bridge"])[0]
            hits = index.opened(name, TrainedCodes).search(asked, 10_000)
            expected = learned.codec.scorer(asked)(learned.encode(index.vectors.take(index.rows)))
        else:
            model = load_late_interaction(str(Path(os.environ[MODELS], name)))
            asked = model.encode_queries(["amber bridge"])[0]
            hits = index.opened(name, MultiVectors).search(asked, 10_000, 0)
            some = index.opened(name, MultiVectors).search(asked, 2, 2)  # through encodings, lists and leading bits
            assert len(some.rows) == min(2, len(hits.rows))
            assert set(some.rows) <= set(hits.rows)
            vectors = [one.vectors for one in model.encode_documents([searched_text(passage) for passage in index])]
            expected = np.array([(asked @ one.T).max(1).mean() for one in vectors])
        assert sorted(hits.rows) == index.rows.tolist()
        scores = dict(zip(hits.rows.tolist(), hits.scores.tolist(), strict=True))
        assert [scores[row] for row in index.rows.tolist()] == pytest.approx(expected.tolist(), abs=0.02)


@functools.cache
def undisturbed(name: str) -> tuple[list[str], dict, dict, list]:
    """The kinds of the run's steps; what the index holds before and after; what it finds after."""
    with TemporaryDirectory() as folder:
        kb = Path(folder, "kb")
        before(name, kb)
        old = content(kb) if "before" in SCENARIOS[name] else {}
        _, out = run(name, kb, 0)
        assert verify(kb) == []
        return json.loads(out), old, content(kb), found(kb)


def check_and_mend(name: str, kb: Path) -> None:
    """What every killed run must leave, and what the same run again must make of it."""
    _, old, new, finds = undisturbed(name)
    committed: dict = {}
    if manifest.exists(kb):
        assert verify(kb) == []
        committed = content(kb)
        # Each document is whole, in its old version or its new one.
        for source, passages in committed.items():
            assert passages in (old.get(source), new.get(source))
        found(kb)
    else:
        assert not old
        with pytest.raises(StoreError, match=r"Run the same ragzip index command again|Make one"):
            Index.open(kb)
    encoder = WordEncoder(company=True)
    after(name, kb, encoder)
    assert content(kb) == new
    assert found(kb) == finds
    assert verify(kb) == []
    assert info(kb).searchable
    if name in ("multi_vector", "jpq"):
        by_part(name, kb)
    # Nothing that was committed is encoded again.
    if not SCENARIOS[name].get("rebuild"):
        encoded = sum(map(len, encoder.calls))
        assert encoded == sum(len(p) for s, p in new.items() if committed.get(s) != p)
    stray = {p.name for p in kb.rglob("*") if p.is_file()} - {Path(f.name).name for f in Index.open(kb).manifest.files}
    assert stray == {"manifest.json", "write.lock", Index.open(kb).manifest.table}


MOMENTS = {
    "rows committed, manifest not": lambda kind, last: (
        last == "COMMIT" and kind.startswith(("open manifest", "os.mkdir"))
    ),
    "rows written, not committed": lambda kind, last: kind == "COMMIT",
    "manifest written, not renamed": lambda kind, last: kind.startswith("os.rename manifest"),
    "another file written, not renamed": lambda kind, last: kind.startswith("os.rename") and "manifest" not in kind,
    "manifest renamed": lambda kind, last: last.startswith("os.rename manifest"),
    "any": lambda kind, last: True,
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - {"multi_vector"}))  # whose runs load a model: see below
def test_killed_at_a_step(tmp_path, name, moment):
    kinds = undisturbed(name)[0]
    at = [n for n, pair in enumerate(zip(kinds, ["", *kinds], strict=False), start=1) if MOMENTS[moment](*pair)]
    kb = tmp_path / "kb"
    before(name, kb)
    assert run(name, kb, random.Random(f"{name} {moment}").choice(at))[0] == -signal.SIGKILL
    check_and_mend(name, kb)


@pytest.mark.parametrize("share", [0.2, 0.7])
@pytest.mark.parametrize("name", ["graph", "jpq", "multi_vector"])
def test_killed_while_a_part_is_made(tmp_path, name, share):
    kinds = undisturbed(name)[0]
    first = next(n for n, kind in enumerate(kinds, start=1) if kind.startswith("os.mkdir part-"))
    kb = tmp_path / "kb"
    before(name, kb)
    step = first + int(share * (len(kinds) - first))
    assert run(name, kb, step)[0] == -signal.SIGKILL
    check_and_mend(name, kb)


def test_killed_again_and_again(tmp_path):
    kb = tmp_path / "kb"
    before("update", kb)
    kills = 0
    for step in (9, 33, 47, 61, 80, 99):
        kills += run("update", kb, step)[0] == -signal.SIGKILL
    assert kills >= 3
    check_and_mend("update", kb)


def test_killed_at_random_moments(tmp_path):
    kb = tmp_path / "kb"
    done = -1
    rng = random.Random(1)
    for _ in range(4):
        process = start("endless", kb)
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(rng.random() * 0.2)
        process.kill()
        last = process.communicate()[0].split()
        done = max(done, int([first, *last][-1]))
        assert verify(kb) == []
        held = content(kb)
        assert {f"docs/{n}.md" for n in range(done + 1)} <= set(held)
        assert len(held) <= done + 2
    make(kb, [], sync=False)
    assert verify(kb) == []
    assert info(kb).searchable


def test_a_journal_left_by_a_killed_writer_is_rolled_back(tmp_path):
    kb = tmp_path / "kb"
    make(kb, SCENARIOS["first"]["after"])
    expected, finds = content(kb), found(kb)
    copy = tmp_path / "copy"
    assert run("hot", kb)[0] == -signal.SIGKILL
    journal = kb / (Index.open(kb).manifest.table + "-journal")
    assert journal.stat().st_size > 0
    shutil.copytree(kb, copy)
    # A reader mends it ...
    assert content(kb) == expected
    assert found(kb) == finds
    # ... and so does a writer.
    encoder = WordEncoder()
    make(copy, SCENARIOS["first"]["after"], encoder=encoder)
    assert encoder.calls == []
    assert content(copy) == expected
    assert verify(kb) == verify(copy) == []


@pytest.mark.parametrize("size", [0, 1_000, 5_000, 30_000, 45_000])
def test_a_full_disk_loses_nothing(tmp_path, size):
    """No file may grow beyond a size: the error names the index and what to do, and the next run goes on."""
    kb = tmp_path / "kb"
    make(kb, SCENARIOS["first"]["after"][:3], encoder=WordEncoder(company=True))
    held = content(kb)
    code, out = run("small_disk", kb, size)
    assert code == 0
    assert out.startswith(f"refused: {kb}"), out
    assert "stays at its last commit" in out
    assert "run the same command again" in out
    assert verify(kb) == []
    assert {source: content(kb)[source] for source in held} == held
    assert not list(kb.rglob("*.tmp"))
    make(kb, SCENARIOS["first"]["after"], encoder=WordEncoder(company=True))
    assert len(content(kb)) == 12
    assert verify(kb) == []


def test_a_rebuild_goes_on_where_it_was_killed(tmp_path):
    kb = tmp_path / "kb"
    before("rebuild", kb)
    old = content(kb)
    steps, _, new, _ = undisturbed("rebuild")
    assert run("rebuild", kb, len(steps) * 2 // 3)[0] == -signal.SIGKILL
    assert content(kb) == old
    assert (kb / manifest.PENDING).exists()
    encoder = WordEncoder(company=True)
    after("rebuild", kb, encoder)
    assert content(kb) == new
    assert 0 < sum(map(len, encoder.calls)) < sum(map(len, new.values()))


def test_a_rebuild_given_up_leaves_nothing(tmp_path):
    kb = tmp_path / "kb"
    before("rebuild", kb)
    old = content(kb)
    run("rebuild", kb, len(undisturbed("rebuild")[0]) * 2 // 3)
    make(kb, SCENARIOS["rebuild"]["before"], encoder=WordEncoder(company=True))
    assert content(kb) == old
    assert not (kb / manifest.PENDING).exists()
    assert len(list(kb.glob("passages-*.sqlite"))) == 1

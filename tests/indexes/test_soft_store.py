"""Stores of soft segments: what was put in comes out, or a clear error, whatever happened to the files."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragzip.errors import ConfigError, StoreDamaged, StoreError, StoreMismatch
from ragzip.indexes import soft_shards, soft_store
from ragzip.indexes.soft_store import MANIFEST, Filling, Setting, SoftStore, find_store, key_of, lock, store_folder

SETTING = Setting("comp_llm", "weights", "f" * 64, "tiny", 4, 6)
UNITS = st.one_of(st.text(max_size=8), st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple))


def rows(unit, columns=6):
    draw = np.random.default_rng(int.from_bytes(key_of(unit)[:4], "little"))
    return draw.normal(size=(1 + draw.integers(0, 3), columns)).astype(np.float32)


def filled(root, units, precision="float16", setting=SETTING):
    filling = Filling(root, setting, precision)
    filling.commit({unit: rows(unit) for unit in filling.missing(units)})
    return SoftStore(root)


@given(st.lists(UNITS, min_size=1, max_size=20), st.lists(UNITS, max_size=10), st.sampled_from(["float16", "int8"]))
def test_what_was_put_in_comes_out(tmp_path_factory, first, second, precision):
    root = tmp_path_factory.mktemp("store")
    filled(root, first, precision)
    store = filled(root, second, precision) if second else SoftStore(root)
    known = {*first, *second}
    assert len(store) == len(known)
    found = store.get([*known, "no such piece", (1, 2, 3, 4, 5, 6, 7)])
    assert set(found) == known
    for unit, values in found.items():
        expected = rows(unit)
        step = np.abs(expected).max(axis=1, keepdims=True) * (1 / 127 if precision == "int8" else 1 / 1024)
        assert values.shape == expected.shape
        assert (np.abs(values - expected) <= step).all()
    assert store.verify() == []


def test_texts_and_tokens_are_told_apart():
    keys = [key_of(unit) for unit in ("", (), "a", (97,), (97, 0), (0, 97), "a\0", "\ud800")]
    assert len(set(keys)) == len(keys)


def test_nothing_is_put_in_twice(tmp_path):
    filled(tmp_path, ["a", "b"])
    filling = Filling(tmp_path, SETTING)
    assert filling.missing(["a", "c", "b", "c"]) == ["c"]
    filling.commit({})
    assert len(SoftStore(tmp_path).shards) == 1


def test_files_are_mapped_and_not_loaded(tmp_path):
    big = dataclasses.replace(SETTING, columns=256)
    filling = Filling(tmp_path, big)
    filling.commit({(i,): np.ones((8, 256), np.float32) * i for i in range(4000)})
    assert SoftStore(tmp_path).bytes > 16_000_000
    tracemalloc.start()
    try:
        found = SoftStore(tmp_path).get([(17,), (3999,)])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
    assert found[17,][0, 0] == 17


@pytest.mark.parametrize("name", ["method", "fingerprint", "space", "rate", "columns"])
def test_a_store_of_something_else_is_refused(tmp_path, name):
    filled(tmp_path / "soft" / "one", ["a"])
    other = dataclasses.replace(SETTING, **{name: 8 if name in ("rate", "columns") else "other"})
    for place in (tmp_path / "soft" / "one", tmp_path):
        with pytest.raises((StoreMismatch, StoreError), match=r"comp_llm|no store of other"):
            find_store(place, other)
    with pytest.raises(StoreMismatch, match=name):
        Filling(tmp_path / "soft" / "one", other)


def test_the_name_of_the_weights_does_not_matter(tmp_path):
    filled(tmp_path, ["a"])
    assert find_store(tmp_path, dataclasses.replace(SETTING, model="elsewhere/weights")) == tmp_path


def test_an_index_may_have_several_stores(tmp_path):
    other = dataclasses.replace(SETTING, rate=8)
    for setting, units in ((SETTING, ["a"]), (other, ["a", "b"])):
        filled(store_folder(tmp_path, setting, "float16"), units, setting=setting)
    assert len(SoftStore(find_store(tmp_path, SETTING))) == 1
    assert len(SoftStore(find_store(tmp_path, other))) == 2
    with pytest.raises(StoreError, match="no store of xrag"):
        find_store(tmp_path, dataclasses.replace(SETTING, method="xrag"))


def test_precisions_are_not_mixed(tmp_path):
    filled(tmp_path, ["a"])
    with pytest.raises(StoreMismatch, match="float16, not int8"):
        Filling(tmp_path, SETTING, "int8")
    with pytest.raises(ConfigError, match="precision"):
        Filling(tmp_path, SETTING, "int4")


def test_what_is_not_finite_is_not_stored(tmp_path):
    for bad in (np.nan, np.inf, 1e6):  # the last one is too large for half precision
        with pytest.raises(StoreDamaged, match="not finite"), np.errstate(over="ignore"):
            Filling(tmp_path, SETTING).commit({"a": np.full((1, 6), bad, np.float32)})
    assert not (tmp_path / MANIFEST).exists()


def test_a_shard_that_was_not_committed_is_not_there(tmp_path, monkeypatch):
    filled(tmp_path, ["a"])
    filling = Filling(tmp_path, SETTING)
    real = json.dumps

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("ragzip.indexes.soft_store.json.dumps", die)
    with pytest.raises(KeyboardInterrupt):
        filling.commit({"b": rows("b")})
    monkeypatch.setattr("ragzip.indexes.soft_store.json.dumps", real)
    store = SoftStore(tmp_path)
    assert set(store.get(["a", "b"])) == {"a"}
    again = filled(tmp_path, ["a", "b", "c"])
    assert set(again.get(["a", "b", "c"])) == {"a", "b", "c"}
    assert again.verify() == []


def damage_cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def damage_remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [damage_cut, damage_remove])
@pytest.mark.parametrize("part", ["keys", "places", "rows", "scales"])
def test_damaged_files_are_named(tmp_path, part, damage):
    filled(tmp_path, ["a", "b"], "int8")
    damage(tmp_path / f"00000.{part}.npy")
    with pytest.raises(StoreDamaged, match=part):
        SoftStore(tmp_path)


def test_a_flipped_bit_is_found_by_verify(tmp_path):
    store = filled(tmp_path, ["a", "b"])
    path = tmp_path / "00000.rows.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    (problem,) = store.verify()
    assert "rows" in problem


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 2}', '{"format": 1, "precision": "int4"}'],
)
def test_a_manifest_that_says_nothing_is_refused(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(StoreDamaged, match=MANIFEST):
        SoftStore(tmp_path)


def test_files_outside_of_the_store_are_refused(tmp_path):
    filled(tmp_path, ["a"])
    path = tmp_path / MANIFEST
    path.write_text(path.read_text().replace('"00000.rows.npy"', '"../00000.rows.npy"'))
    with pytest.raises(StoreDamaged, match="no file of a store"):
        SoftStore(tmp_path)


def test_one_process_at_a_time_fills_it(tmp_path):
    with lock(tmp_path), pytest.raises(StoreError, match="another process"), lock(tmp_path):
        pass


@pytest.mark.parametrize("when", ["before", "behind"])
def test_an_interrupt_behind_the_manifest_loses_nothing(tmp_path, monkeypatch, when):
    """The new shard is there, the filling does not know it, and whoever cleans up commits the same pieces again."""
    filled(tmp_path, ["a"])
    filling = Filling(tmp_path, SETTING)
    filling.commit({"b": rows("b")})
    waiting = {unit: rows(unit) for unit in ("c", "d")}

    def interrupt(self, root):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if when == "behind":
            patch.setattr(SoftStore, "__init__", interrupt)
        else:
            new_file = soft_store.new_file
            patch.setattr(
                soft_store,
                "new_file",
                lambda path: interrupt(None, path) if path.name == MANIFEST else new_file(path),
            )
        with pytest.raises(KeyboardInterrupt):
            filling.commit(waiting)
    filling.commit(waiting)
    filling.commit({"e": rows("e")})
    store = SoftStore(tmp_path)
    assert set(store.get(["a", "b", "c", "d", "e"])) == {"a", "b", "c", "d", "e"}
    assert len(store) == 5
    assert store.verify() == []
    assert filling.present.identity == store.identity == filled(tmp_path / "other", ["a", "b", "c", "d", "e"]).identity


def test_pieces_are_hashed_once_whatever_the_shards(tmp_path, monkeypatch):
    for unit in "abcdef":
        filled(tmp_path, [unit])
    store, hashed, real = SoftStore(tmp_path), [], soft_store.key_of
    monkeypatch.setattr(soft_store, "key_of", lambda unit: hashed.append(unit) or real(unit))
    assert set(store.get(["f", "a", "x", "y"])) == {"a", "f"}
    assert sorted(hashed) == ["a", "f", "x", "y"]


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_store_that_grows_bit_by_bit_keeps_few_files(tmp_path, precision):
    units = [f"piece {number}" for number in range(40)]
    for unit in units:
        before = filled(tmp_path, [unit], precision)
    whole = filled(tmp_path.parent / f"{tmp_path.name} at once", units, precision)
    store = SoftStore(tmp_path)
    assert len(store.shards) <= 17
    assert len(list(tmp_path.glob("*.npy"))) == sum(len(shard.files) for shard in store.shards)
    assert store.verify() == []
    assert (len(store), store.identity) == (40, whole.identity)
    mine, theirs, held = store.get(units), whole.get(units), before.get(units)
    for unit in units:
        assert np.array_equal(mine[unit], theirs[unit])
        assert np.array_equal(held[unit], theirs[unit])


def test_large_shards_are_not_written_again(tmp_path, monkeypatch):
    filled(tmp_path, [f"large {number}" for number in range(50)])
    monkeypatch.setattr(soft_shards, "_SMALL_BYTES", SoftStore(tmp_path).bytes)
    for number in range(20):
        store = filled(tmp_path, [f"small {number}"])
    assert store.shards[0].files[0].name.startswith("00000.")
    assert 2 <= len(store.shards) <= 18
    assert len(store) == 70


def test_a_reader_that_comes_while_shards_are_joined_finds_everything(tmp_path, monkeypatch):
    units = [f"piece {number}" for number in range(17)]
    for unit in units[:16]:
        filled(tmp_path, [unit])
    real, meanwhile = soft_store.opened, []

    def late(root, shard, *, hint):
        if not meanwhile:
            meanwhile.append(True)
            filled(tmp_path, [units[16]])
        return real(root, shard, hint=hint)

    monkeypatch.setattr(soft_store, "opened", late)
    assert set(SoftStore(tmp_path).get(units)) == set(units)


def test_what_a_stopped_commit_left_is_swept(tmp_path):
    filled(tmp_path, ["a"])
    (tmp_path / "00007.rows.npy").write_bytes(b"half")
    (tmp_path / "mine.npy").write_bytes(b"other")
    filled(tmp_path, ["a"])  # nothing new: swept all the same
    assert sorted(path.name for path in tmp_path.glob("*.npy") if path.name[:5] != "00000") == ["mine.npy"]


@pytest.mark.parametrize("part", ["keys", "places", "rows"])
def test_what_is_damaged_is_not_joined_to_look_sound(tmp_path, part):
    units = [f"piece {number}" for number in range(20)]
    for unit in units[:16]:
        filled(tmp_path, [unit])
    path = tmp_path / f"00003.{part}.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    for unit in units[16:]:
        store = filled(tmp_path, [unit])
    (problem,) = store.verify()
    assert path.name in problem
    assert len(store) == 20


def test_an_open_store_verifies_what_was_joined_meanwhile(tmp_path):
    units = [f"piece {number}" for number in range(17)]
    for unit in units[:16]:
        before = filled(tmp_path, [unit])
    filled(tmp_path, units)
    assert before.verify() == []
    path = next(tmp_path.glob("*.rows.npy"))
    path.write_bytes(path.read_bytes()[:-2] + b"??")
    assert len(before.verify()) == 1


def test_a_store_that_cannot_be_read_is_not_damaged(tmp_path, monkeypatch):
    filled(tmp_path, ["a"])

    def refused(path, **_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(soft_shards.np, "load", refused)
    with pytest.raises(StoreError, match="cannot be read: Permission denied") as caught:
        SoftStore(tmp_path)
    assert not isinstance(caught.value, StoreDamaged)
    assert "Remove" not in caught.value.hint

"""The weights that come with the package: resolved by name, checked before use, and what ``make check`` says."""

import dataclasses
import hashlib
import json
import os
from types import MappingProxyType

import pytest

from ragzip import models
from ragzip.errors import ModelError
from ragzip.models import catalogue, shipped
from ragzip.training.card import CARD, Card, DataSource, Results, Row, check_card, write_card
from tools import check_weights

NAME = "fake-minilm"
DATA = b"a few weights"


def card(**changes):
    rows = (Row("fake", "trained", (0.5,)), Row("before", "untrained", (0.1,)), Row("bm25", "baseline", (0.2,)))
    values = {
        "name": NAME,
        "method": "fake",
        "about": "Nothing.",
        "licence": "Apache-2.0",
        "base_model": catalogue.EMBEDDER,
        "data": (DataSource("qed", "train", 10, "Apache-2.0"),),
        "labels": "By hand.",
        "limits": "All.",
        "command": "ragzip train fake fake.yaml --out fake",
        "config": {"type": "fake"},
        "steps": 1,
        "seed": 0,
        "results": (Results("qed dev", ("f1",), rows),),
    }
    return Card(**{**values, **changes})


@pytest.fixture
def spec(tmp_path, monkeypatch, own_cache):
    """One name, its folder as it should be, and a table that knows it."""
    made = shipped.ShippedSpec(NAME, "fake", catalogue.EMBEDDER, "Apache-2.0", hashlib.sha256(DATA).hexdigest())
    monkeypatch.setattr(shipped, "ROOT", tmp_path / "weights")
    know(monkeypatch, made)
    made.folder.mkdir(parents=True)
    (made.folder / made.weights).write_bytes(DATA)
    (made.folder / "config.json").write_text("{}")
    (shipped.ROOT / "LICENSE").write_text("CC-BY-SA-4.0")
    write_card(made.folder, card())
    return made


def know(monkeypatch, *specs):
    monkeypatch.setattr(shipped, "SHIPPED", MappingProxyType({spec.name: spec for spec in specs}))


def test_a_name_leads_to_the_folder(spec):
    assert models.resolve(NAME) == spec.folder == models.fetch(NAME)
    assert models.status(NAME) == "package"
    assert models.canonical(NAME) == NAME
    assert models.all_shipped() == (spec,)
    assert spec.bytes == len(DATA)


def test_a_local_folder_of_the_name_comes_first(spec, tmp_path, monkeypatch):
    (tmp_path / "work" / NAME).mkdir(parents=True)
    (tmp_path / "work" / NAME / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "work")
    assert models.resolve(NAME) == tmp_path / "work" / NAME
    assert models.status(NAME) == "local"


def test_another_file_is_refused(spec, monkeypatch):
    weights = spec.folder / spec.weights
    before = weights.stat()
    weights.write_bytes(DATA.upper())
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    with pytest.raises(ModelError, match="checksum differs"):
        models.resolve(NAME)
    know(monkeypatch, dataclasses.replace(spec, sha256=""))
    with pytest.raises(ModelError, match="no checksum is known"):
        models.resolve(NAME)


def test_the_file_is_read_once_for_each_state(spec, monkeypatch):
    read = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *a: read.append(a) or real(*a))
    for _ in range(3):
        models.resolve(NAME)
    assert len(read) == 1


def test_a_missing_folder_says_so(spec):
    (spec.folder / spec.weights).unlink()
    assert models.status(NAME) == ""
    assert spec.bytes == 0
    with pytest.raises(ModelError, match=r"should have come with ragzip, but .* does not exist") as caught:
        models.resolve(NAME)
    assert "Install ragzip again" in caught.value.hint


def test_a_typo_finds_it(spec):
    with pytest.raises(ModelError, match="Did you mean 'fake-minilm'"):
        models.resolve("fake-minilm-l6")


def test_they_are_listed(spec, capsys):
    from ragzip.cli.app import run

    assert run(["models", "--json"]) == 0
    (weights,) = json.loads(capsys.readouterr().out)["weights"]
    assert weights["name"] == NAME
    assert (weights["bytes"], weights["licence"], weights["here"]) == (len(DATA), "Apache-2.0", "package")
    assert run(["models"]) == 0
    out = capsys.readouterr().out
    assert NAME in out
    assert "13 B" in out


def test_the_check_is_content(spec):
    assert check_weights.problems() == []
    assert check_weights.main() == 0


def _more_weights(folder):
    (folder / "more.safetensors").write_bytes(b"x")
    (folder / CARD).unlink()
    write_card(folder, card())


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"x"), "checksum differs"),
        (lambda f: (f / CARD).unlink(), "no model card"),
        (lambda f: (f / "model.bin").write_bytes(b"x"), "only files of the kinds"),
        (lambda f: (f / "more.json").symlink_to(f / "config.json"), "only files of the kinds"),
        (lambda f: (f / "below").mkdir(), "only files of the kinds"),
        (lambda f: (f / "config.json").write_text('{"base": "/home/me/model"}'), "a path of one machine"),
        (lambda f: write_card(f, card(licence="MIT")), "licence is 'MIT' on the card, 'Apache-2.0' in the table"),
        (lambda f: write_card(f, card(base_model="bert")), "base_model is 'bert'"),
        (lambda f: write_card(f, card(results=())), "the card has no results"),
        (lambda f: write_card(f, card(results=(Results("dev", (), (Row("a", "trained", ()),)),))), "that is untrained"),
        (lambda f: (f / CARD).write_text((f / CARD).read_text().replace("| 0.500", "| 0.600")), "not what its head"),
        (lambda f: (f.parent / "other").mkdir(), "not in the table"),
        (lambda f: (f.parent / "LICENSE").unlink(), "under which licence the weights are"),
        (_more_weights, "holds model.safetensors, more.safetensors"),
    ],
)
def test_the_check_finds(spec, damage, says, capsys):
    damage(spec.folder)
    assert check_weights.main() == 1
    assert says in capsys.readouterr().out


def test_the_check_compares_with_the_table(spec, monkeypatch):
    know(monkeypatch, dataclasses.replace(spec, sha256=""))
    (problem,) = check_weights.problems()
    assert f'the table should say sha256="{spec.sha256}"' in problem
    gone = dataclasses.replace(spec, name="gone", method="gone")
    know(monkeypatch, spec, gone)
    assert check_weights.problems() == [f"{gone.folder}: missing, though the table has its checksum"]
    know(monkeypatch, spec, dataclasses.replace(gone, sha256=""))
    assert check_weights.problems() == []


def test_the_check_weighs(spec, monkeypatch):
    monkeypatch.setattr(check_weights, "MOST_BYTES", 10)
    assert any("more than 10" in problem for problem in check_weights.problems())


@pytest.mark.parametrize("name", list(shipped.SHIPPED))
def test_what_is_shipped_is_sound(name):
    spec = shipped.SHIPPED[name]
    if not spec.folder.is_dir():
        pytest.skip(f"the weights {name} are not trained yet: no {spec.folder}")
    assert models.resolve(name) == spec.folder
    found = check_card(spec.folder)
    assert found.sha256 == {spec.weights: spec.sha256}
    assert (found.name, found.method, found.base_model, found.licence) == (name, spec.method, spec.base, spec.licence)


def test_the_table_is_consistent():
    for name, spec in shipped.SHIPPED.items():
        assert spec.name == name
        assert spec.base in catalogue.CATALOGUE
        assert len(spec.sha256) in (0, 64)
        assert spec.weights.endswith("model.safetensors")
    assert len({spec.method for spec in shipped.SHIPPED.values()}) == len(shipped.SHIPPED)

"""``ragzip index compress``: a store beside an index, and pipelines that read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ragzip import yaml_io
from tests.cli.conftest import Call
from tests.matrix import soft_model


def base_of(architecture: str) -> str:
    return str(json.loads((Path(soft_model(architecture)) / "config.json").read_text())["base"])


def filled(call: Call, kb: Path, method: str, *more: str) -> dict:
    done = call("index", "compress", kb, "--with", method, "--model", soft_model(method), *more, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.mark.parametrize("method", ["xrag", "comp_llm", "icae", "refrag"])
def test_a_store_is_filled_once_and_takes_what_is_new(call: Call, docs: Path, kb: Path, method: str) -> None:
    first = filled(call, kb, method)
    assert first["added"] == first["pieces"] > 0
    assert Path(first["folder"]).parent == kb / "soft"
    assert filled(call, kb, method)["added"] == 0
    (docs / "new.txt").write_text("Birds sing in the morning.", encoding="utf-8")
    assert call("index", docs, "--index", kb).code == 0
    assert 0 < filled(call, kb, method)["added"] < first["pieces"]
    assert call("index", "verify", "--index", kb).code == 0


@pytest.mark.models
@pytest.mark.parametrize("method", ["xrag", "refrag"])
def test_what_comes_with_the_package_needs_no_name(call: Call, kb: Path, method: str) -> None:
    done = call("index", "compress", kb, "--with", method, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["added"] > 0


def test_a_query_reads_the_store_and_says_so(call: Call, kb: Path, tmp_path: Path) -> None:
    filled(call, kb, "comp_llm", "--set", "rate=2", "--precision", "int8")
    pipeline = tmp_path / "pipeline.yaml"
    soft = {"type": "comp_llm", "model": soft_model("comp_llm"), "rate": 2, "store": str(kb), "dtype": "fp32"}
    generator = {"type": "huggingface", "model": base_of("comp_llm"), "max_new_tokens": 4, "dtype": "fp32"}
    values = {
        "ragzip": 1,
        "retriever": {"type": "bm25", "index": str(kb), "top_k": 2},
        "compressors": [soft],
        "generator": generator,
    }
    pipeline.write_text(yaml_io.dump(values), encoding="utf-8")
    done = call("query", "Where did the cat sit?", "--pipeline", pipeline, "--json")
    assert done.code == 0, done.err
    (step,) = json.loads(done.out)["steps"]
    found, _, total, *_ = step["detail"].split()
    assert found == total
    shown = call("query", "Where did the cat sit?", "--pipeline", pipeline).out
    assert f"{found} of {total} pieces from the store" in shown
    generator["kv"] = [{"type": "snapkv", "keep": 0.5, "window": 8}]
    pipeline.write_text(yaml_io.dump(values), encoding="utf-8")
    small = json.loads(call("query", "Where did the cat sit?", "--pipeline", pipeline, "--json").out)
    assert 0 < small["kv_bytes"] < small["kv_bytes_full"]
    assert "  cache      " in call("query", "Where did the cat sit?", "--pipeline", pipeline).out
    soft["rate"] = 4
    pipeline.write_text(yaml_io.dump(values), encoding="utf-8")
    refused = call("query", "Where did the cat sit?", "--pipeline", pipeline)
    assert refused.code == 1
    assert "rate" in refused.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--with", "provence", "--model", "m"], 2, "keeps no store"),
        (["--with", "nothing", "--model", "m"], 2, "nothing"),
        (["--with", "icae", "--set", 'model=""'], 2, "ragzip train icae"),
        (["--with", "comp_llm", "--model", "COMP", "--set", "rate"], 2, "option=value"),
        (["--with", "comp_llm", "--model", "COMP", "--set", "rate=8"], 2, "not trained"),
        (["--with", "comp_llm", "--model", "COMP", "--precision", "int4"], 2, "precision"),
        (["--with", "comp_llm", "--model", "./nowhere"], 1, "nowhere"),
        (["--with", "xrag", "--model", "COMP"], 1, "trained to be a comp_llm"),
    ],
)
def test_what_cannot_be_is_said_in_one_message(
    call: Call, kb: Path, arguments: list[str], code: int, said: str
) -> None:
    given = [soft_model("comp_llm") if argument == "COMP" else argument for argument in arguments]
    done = call("index", "compress", kb, *given)
    assert said in done.err
    assert done.code == code
    assert not list(kb.glob("soft/*/store.json"))


def test_without_an_index_it_says_so(call: Call, tmp_path: Path) -> None:
    done = call("index", "compress", tmp_path / "none", "--with", "xrag", "--model", soft_model("xrag"))
    assert done.code == 1
    assert "none" in done.err


def test_a_store_is_no_option_of_filling_one(call: Call, kb: Path) -> None:
    done = call("index", "compress", kb, "--with", "xrag", "--model", soft_model("xrag"), "--set", "store=elsewhere")
    assert done.code == 2
    assert "store: is filled here" in done.err
    assert not (kb / "soft").exists()

"""The same positions as kvpress keeps, on the same model; kvpress has an environment of its own (make test-kvpress)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from ragzip.kv import KVSession
from ragzip.kv.expected_attention import ExpectedAttention
from ragzip.kv.snapkv import SnapKV
from ragzip.kv.streaming_llm import StreamingLLM
from ragzip.models import load_causal_lm
from ragzip.models.chat import EncodedPrompt

PYTHON = os.environ.get("RAGZIP_KVPRESS", "")
METHODS = {
    "streaming_llm": StreamingLLM(keep=0.5, sinks=4, window=0),
    "snapkv": SnapKV(keep=0.5, window=16, kernel=5),
    "expected_attention": ExpectedAttention(keep=0.5, future=64, window=0),
}
TEXT = "The river runs to the sea. Numbers such as 1, 22 and 333 are tokens. A railway was opened there in 1922. "


@pytest.mark.skipif(not PYTHON, reason="RAGZIP_KVPRESS names no Python with kvpress; run: make test-kvpress")
def test_the_same_positions_are_kept(tiny_lm_path, monkeypatch):
    lm = load_causal_lm(tiny_lm_path, dtype="fp32", device="cpu")
    (ids,) = lm.text.encode([TEXT * 3])
    child = Path(__file__).parent / "kvpress_child.py"
    done = subprocess.run(
        [PYTHON, str(child), tiny_lm_path, json.dumps(ids)], capture_output=True, text=True, check=True
    )
    theirs = json.loads(done.stdout.strip().splitlines()[-1])
    for name, method in METHODS.items():
        ours = []

        def note(seen, method=method, ours=ours):
            places = type(method).kept(method, seen)
            ours.append(places.tolist())
            return places

        session = KVSession(lm, EncodedPrompt((ids,)), (method,))
        monkeypatch.setattr(session, "_eviction", type("Noted", (), {"kept": staticmethod(note)})())
        with session.open(), torch.inference_mode():
            lm.model(input_ids=torch.tensor([ids]), past_key_values=session.cache, use_cache=True)
        assert ours == theirs[name], name

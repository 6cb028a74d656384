"""Run by a Python that has kvpress: which positions its presses keep, as JSON on standard output."""

import json
import sys

import torch
from kvpress import ExpectedAttentionPress, SnapKVPress, StreamingLLMPress
from transformers import AutoModelForCausalLM, DynamicCache

folder, ids = sys.argv[1], torch.tensor([json.loads(sys.argv[2])])
PRESSES = {
    "streaming_llm": StreamingLLMPress(compression_ratio=0.5, n_sink=4),
    "snapkv": SnapKVPress(compression_ratio=0.5, window_size=16, kernel_size=5),
    "expected_attention": ExpectedAttentionPress(compression_ratio=0.5, n_future_positions=64, n_sink=4),
}


def keys(model, press=None):
    cache = DynamicCache()
    with torch.inference_mode():
        if press is None:
            model(ids, past_key_values=cache)
        else:
            with press(model):
                model(ids, past_key_values=cache)
    return [layer.keys[0] for layer in cache.layers]


model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
whole = keys(model)
found = {}
for name, press in PRESSES.items():
    layers = []
    for full, kept in zip(whole, keys(model, press), strict=True):
        # each kept key is found among all keys by its values
        far = torch.cdist(kept, full)
        layers.append([sorted(row.argmin(-1).tolist()) for row in far])
    found[name] = layers
print(json.dumps(found))

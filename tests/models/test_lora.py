import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ragzip import models
from ragzip.errors import ModelError
from ragzip.models.identity import folder_fingerprint
from ragzip.models.lora import read_adapter
from ragzip.models.weights import is_adapter, looks_complete

PREFIX = "base_model.model."
TARGETS = ("q_proj", "down_proj")


def write_adapter(folder, base, *, rank=4, targets=TARGETS, seed=0, layers=2, tensors=None, **config):
    """An adapter on the tiny Llama, as ``peft`` lays it out."""
    folder.mkdir(parents=True, exist_ok=True)
    own = load_file(Path(base) / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    made = {}
    for key, value in own.items():
        module = key.removesuffix(".weight")
        if targets == "all-linear":
            wanted = value.dim() == 2 and module.startswith("model.layers.")
        else:
            wanted = module.endswith(tuple(targets)) and value.dim() == 2
        if wanted:
            made[f"{PREFIX}{module}.lora_A.weight"] = torch.randn(rank, value.shape[1], generator=generator)
            made[f"{PREFIX}{module}.lora_B.weight"] = torch.randn(value.shape[0], rank, generator=generator)
    save_file({**made, **(tensors or {})}, folder / "adapter_model.safetensors")
    written = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(base),
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.05,
        "target_modules": targets if isinstance(targets, str) else list(targets),
        "bias": "none",
        "use_dora": False,
        "use_rslora": False,
        "modules_to_save": None,
        "rank_pattern": {},
        "inference_mode": True,
        "init_lora_weights": True,
        "task_type": "CAUSAL_LM",
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(written))
    return folder


def edit(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.fixture
def adapter(tmp_path, tiny_lm_path):
    return write_adapter(tmp_path / "adapter", tiny_lm_path)


def with_side_path(base, folder, scale):
    """Logits of the base with ``scale · B(A x)`` added to the output of each adapted layer: LoRA as it was trained."""
    model = models.load_causal_lm(base, dtype="fp32").model
    tensors = load_file(folder / "adapter_model.safetensors")
    hooks = []
    for name, module in model.named_modules():
        a, b = (tensors.get(f"{PREFIX}{name}.lora_{x}.weight") for x in "AB")
        if a is not None:

            def add(_, inputs, out, a=a, b=b):
                return out + scale * (inputs[0] @ a.T) @ b.T

            hooks.append(module.register_forward_hook(add))
    try:
        with torch.inference_mode():
            return model(input_ids=torch.tensor([[5, 80, 33, 200]])).logits
    finally:
        for hook in hooks:
            hook.remove()


def logits(name):
    with torch.inference_mode():
        return models.load_causal_lm(str(name), dtype="fp32").model(input_ids=torch.tensor([[5, 80, 33, 200]])).logits


@pytest.mark.parametrize(("stabilised", "scale"), [(False, 2.0), (True, 8 / 2)])
@pytest.mark.parametrize("targets", [TARGETS, "all-linear"])
def test_merged_is_the_base_with_the_side_path(tmp_path, tiny_lm_path, targets, stabilised, scale):
    folder = write_adapter(tmp_path / "a", tiny_lm_path, targets=targets, use_rslora=stabilised)
    expected = with_side_path(tiny_lm_path, folder, scale)
    # the base is as it was: another model object, with weights of its own
    assert not torch.allclose(logits(tiny_lm_path), expected, atol=0.1)
    torch.testing.assert_close(logits(folder), expected, atol=2e-3, rtol=1e-4)


def test_the_merged_model_is_frozen_and_named(adapter, tiny_lm_path):
    lm = models.load_causal_lm(str(adapter), dtype="fp32")
    assert not lm.model.training
    assert not any(p.requires_grad for p in lm.model.parameters())
    assert lm.space == models.canonical(str(adapter)) != models.canonical(tiny_lm_path)
    assert models.load_causal_lm(str(adapter), dtype="fp32") is lm
    assert lm.text.encode(["Who?"]) == models.text_tokenizer(tiny_lm_path).encode(["Who?"])
    assert lm.tokenizer.chat_template


def test_the_sum_is_rounded_once(tmp_path, tiny_lm_path):
    """In bf16, a change is computed in fp32 and added to the weight before rounding."""
    folder = write_adapter(tmp_path / "a", tiny_lm_path)
    tensors = load_file(folder / "adapter_model.safetensors")
    name = "model.layers.1.self_attn.q_proj"
    delta = 2.0 * tensors[f"{PREFIX}{name}.lora_B.weight"] @ tensors[f"{PREFIX}{name}.lora_A.weight"]
    old = models.load_causal_lm(tiny_lm_path, dtype="bf16").model.get_submodule(name).weight
    new = models.load_causal_lm(str(folder), dtype="bf16").model.get_submodule(name).weight
    assert torch.equal(new, (old.float() + delta).bfloat16())


def test_an_output_layer_tied_to_the_embedding_is_changed_alone(tmp_path, tiny_lm_path):
    base = Path(shutil.copytree(tiny_lm_path, tmp_path / "tied"))
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    tensors = load_file(base / "model.safetensors")
    head = tensors.pop("lm_head.weight")
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    a, b = torch.ones(4, head.shape[1]), torch.ones(head.shape[0], 4)
    pair = {f"{PREFIX}lm_head.lora_A.weight": a, f"{PREFIX}lm_head.lora_B.weight": b}
    folder = write_adapter(tmp_path / "a", base, targets=("lm_head",), tensors=pair)
    model = models.load_causal_lm(str(folder), dtype="fp32").model
    embedding = tensors["model.embed_tokens.weight"]
    assert torch.equal(model.get_input_embeddings().weight, embedding)
    torch.testing.assert_close(model.get_output_embeddings().weight, embedding + 8)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("use_dora", True),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 8}),
        ("alpha_pattern", {"q_proj": 8}),
        ("bias", "all"),
        ("lora_bias", True),
        ("fan_in_fan_out", True),
        ("layers_to_transform", [0]),
        ("exclude_modules", ["k_proj"]),
        ("init_lora_weights", "pissa"),
        ("something_new", {"a": 1}),
        ("peft_type", "PROMPT_TUNING"),
        ("target_modules", r".*\.q_proj"),
        ("target_modules", []),
        ("r", 0),
        ("r", True),
        ("lora_alpha", "8"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(adapter, option, value):
    edit(adapter, **{option: value})
    named = {"peft_type": "PROMPT_TUNING", "lora_alpha": "lora_alpha '8'", "r": "has r "}.get(option, option)
    with pytest.raises(ModelError) as caught:
        models.load_causal_lm(str(adapter))
    assert named in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, "\xff", '{"peft_type": "LORA"}'])
def test_a_broken_config_is_one_line(adapter, text):
    (adapter / "adapter_config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError) as caught:
        models.load_causal_lm(str(adapter))
    assert "\n" not in str(caught.value)
    assert "adapter_config.json" in caught.value.message


def test_tensors_that_are_missing_are_named(adapter):
    key = f"{PREFIX}model.layers.1.mlp.down_proj.lora_B.weight"
    change_tensors(adapter, lambda tensors: tensors.pop(key))
    with pytest.raises(ModelError, match=f"lack {key}"):
        models.load_causal_lm(str(adapter))


def test_tensors_that_no_module_takes_are_named(adapter):
    key = f"{PREFIX}model.layers.7.mlp.down_proj.lora_B.weight"
    change_tensors(adapter, lambda tensors: tensors.update({key: torch.zeros(2, 2)}))
    with pytest.raises(ModelError, match=f"hold {key}"):
        models.load_causal_lm(str(adapter))


def test_shapes_must_fit(adapter):
    key = f"{PREFIX}model.layers.1.mlp.down_proj.lora_B.weight"
    change_tensors(adapter, lambda tensors: tensors.update({key: tensors[key][:-1].clone()}))
    with pytest.raises(ModelError, match=r"do not fit model\.layers\.1\.mlp\.down_proj: \[31, 4\] x \[4, 64\]"):
        models.load_causal_lm(str(adapter))


def test_another_rank_than_the_config_says(adapter):
    edit(adapter, r=2)
    with pytest.raises(ModelError, match="of rank 2"):
        models.load_causal_lm(str(adapter))


def test_values_must_be_finite(adapter):
    key = f"{PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight"
    change_tensors(adapter, lambda tensors: tensors[key].fill_(float("nan")))
    with pytest.raises(ModelError, match="not finite"):
        models.load_causal_lm(str(adapter))


@pytest.mark.parametrize(("target", "what"), [("gate_up_proj", "gate_up_proj"), ("embed_tokens", "no linear layer")])
def test_targets_must_be_linear_layers_of_the_base(adapter, target, what):
    edit(adapter, target_modules=[*TARGETS, target])
    with pytest.raises(ModelError, match=what):
        models.load_causal_lm(str(adapter))


def test_weights_must_be_whole_and_safe(adapter):
    path = adapter / "adapter_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert not looks_complete(adapter)
    with pytest.raises(ModelError, match="is damaged"):
        models.load_causal_lm(str(adapter))
    path.rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match="pickled weights only"):
        models.load_causal_lm(str(adapter))
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(ModelError, match=r"has no adapter_model\.safetensors"):
        models.load_causal_lm(str(adapter))


def test_the_base_is_named_and_can_be_named_anew(adapter, tiny_lm_path, own_cache, tmp_path):
    edit(adapter, base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="needs its base") as caught:
        models.load_causal_lm(str(adapter))
    assert "ragzip_base" in caught.value.hint
    edit(adapter, ragzip_base=tiny_lm_path)
    assert models.load_causal_lm(str(adapter)).window == 2048
    edit(adapter, ragzip_base=None, base_model_name_or_path=None)
    with pytest.raises(ModelError, match="names no base model"):
        models.load_causal_lm(str(adapter))


def test_a_base_cannot_be_an_adapter(adapter, tmp_path):
    other = Path(shutil.copytree(adapter, tmp_path / "other"))
    for folder, base in ((other, adapter), (adapter, adapter)):
        edit(folder, base_model_name_or_path=str(base))
        with pytest.raises(ModelError, match="is an adapter, too"):
            models.load_causal_lm(str(folder))


def test_places(adapter, tiny_lm_path, monkeypatch):
    """An adapter's folder is a model's name like any other."""
    assert is_adapter(adapter)
    assert not is_adapter(Path(tiny_lm_path))
    assert models.resolve(str(adapter)) == adapter
    assert models.status(str(adapter)) == "local"
    monkeypatch.chdir(adapter.parent)
    assert models.resolve("adapter") == adapter
    assert models.canonical("adapter") == models.canonical(str(adapter)) == str(adapter.resolve())
    assert models.CountTokens("adapter")(["Who?"]) == models.CountTokens(tiny_lm_path)(["Who?"])


def test_a_whole_model_beside_an_adapter_config_is_itself(adapter, tiny_lm_path):
    for path in Path(tiny_lm_path).iterdir():
        shutil.copy(path, adapter / path.name)
    assert not is_adapter(adapter)
    assert torch.equal(logits(adapter), logits(tiny_lm_path))


def test_an_adapter_can_bring_its_tokenizer(adapter, tiny_lm_path):
    path = adapter / "chat_template.jinja"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(Path(tiny_lm_path) / name, adapter / name)
    path.write_text("{{ messages[0]['content'] }}!")
    assert models.load_causal_lm(str(adapter)).tokenizer.chat_template == "{{ messages[0]['content'] }}!"


def test_fingerprint_is_of_adapter_and_base(adapter, tiny_lm_path, tmp_path):
    from ragzip.testing.models import tiny_causal_lm

    first = models.fingerprint(str(adapter))
    assert first != models.fingerprint(tiny_lm_path)
    moved = Path(shutil.copytree(adapter, tmp_path / "elsewhere"))
    edit(moved, base_model_name_or_path="nowhere", ragzip_base=str(shutil.copytree(tiny_lm_path, tmp_path / "b")))
    assert models.fingerprint(str(moved)) == first
    edit(moved, ragzip_base=str(tiny_causal_lm(tmp_path / "other", seed=1)))
    assert models.fingerprint(str(moved)) != first
    edit(adapter, lora_alpha=9)
    assert models.fingerprint(str(adapter)) != first


def test_files_that_changed_are_loaded_anew(adapter, tiny_lm_path):
    before = logits(adapter)
    edit(adapter, lora_alpha=1)
    assert not torch.allclose(logits(adapter), before)


def test_the_config_reads_as_written(adapter, tiny_lm_path):
    found = read_adapter(adapter)
    assert (found.base, found.rank, found.scale, found.targets) == (tiny_lm_path, 4, 2.0, tuple(sorted(TARGETS)))


def test_every_key_that_peft_writes_today_is_read(adapter, tiny_lm_path):
    """As peft 0.19 saves a plain adapter: most keys say that something is off, some how the adapter was made."""
    off = ("alora_invocation_tokens", "alpha_pattern", "arrow_config", "auto_mapping", "corda_config", "eva_config")
    off += ("exclude_modules", "layer_replication", "layers_pattern", "layers_to_transform", "megatron_config")
    off += ("modules_to_save", "rank_pattern", "revision", "target_parameters", "trainable_token_indices")
    plain = {"ensure_weight_tying": False, "fan_in_fan_out": False, "lora_bias": False, "use_qalora": False}
    made = {"loftq_config": {}, "lora_dropout": 0.05, "megatron_core": "megatron.core", "peft_version": "0.19.1"}
    edit(adapter, **dict.fromkeys(off), **plain, **made, qalora_group_size=16)
    assert read_adapter(adapter).base == tiny_lm_path
    edit(adapter, use_qalora=True)
    with pytest.raises(ModelError, match="use_qalora"):
        read_adapter(adapter)


def test_one_from_the_hub(adapter, own_cache, tmp_path, monkeypatch):
    """As the hub's own cache lays it out; its base is found by its name."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "hub" / "models--someone--adapter"
    shutil.copytree(adapter, folder / "snapshots" / "abc")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    assert models.status("someone/adapter") == "cache"
    lm = models.load_causal_lm("someone/adapter", dtype="fp32")
    torch.testing.assert_close(lm.model(input_ids=torch.tensor([[5, 80, 33, 200]])).logits, logits(adapter))


def test_an_encoder_decoder_can_be_adapted(tmp_path, tiny_seq2seq_path):
    from ragzip.models.seq2seq import is_seq2seq, load_seq2seq

    own = load_file(Path(tiny_seq2seq_path) / "model.safetensors")
    module = next(key for key in own if key.endswith((".q.weight", "q_proj.weight"))).removesuffix(".weight")
    folder = write_adapter(tmp_path / "a", tiny_seq2seq_path, targets=(module,))
    assert is_seq2seq(folder)
    plain = load_seq2seq(tiny_seq2seq_path, dtype="fp32").model.get_submodule(module).weight
    adapted = load_seq2seq(str(folder), dtype="fp32").model.get_submodule(module).weight
    assert not torch.allclose(plain, adapted)


def test_an_adapter_for_another_base_is_refused(adapter, tiny_lm_path, tmp_path):
    right, unsaid = folder_fingerprint(Path(tiny_lm_path)), folder_fingerprint(adapter)
    edit(adapter, ragzip_base_sha256=right)
    assert folder_fingerprint(adapter) == unsaid  # it says nothing that the base's own does not
    models.load_causal_lm(str(adapter))
    other = Path(shutil.copytree(tiny_lm_path, tmp_path / "other"))
    own = load_file(other / "model.safetensors")
    save_file({key: value + 0.5 for key, value in own.items()}, other / "model.safetensors", metadata={"format": "pt"})
    edit(adapter, base_model_name_or_path=str(other))
    with pytest.raises(ModelError) as caught:
        models.load_causal_lm(str(adapter))
    assert right[:12] in caught.value.message
    assert folder_fingerprint(other)[:12] in caught.value.message
    edit(adapter, ragzip_base_sha256=None)  # as of other programs, which do not say
    models.load_causal_lm(str(adapter))
    edit(adapter, ragzip_base_sha256=7)
    with pytest.raises(ModelError, match="ragzip_base_sha256 '7'"):
        models.load_causal_lm(str(adapter))

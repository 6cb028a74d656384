"""Published pruners give what their own formulas give, and say what is wrong with them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from ragzip.errors import ModelError
from ragzip.models import load_pruner
from tests.models import pruner_checkpoints as made
from tests.models.pruner_checkpoints import PASSAGE, QUESTION


def judge(folder, passage=PASSAGE, dtype="fp32"):
    (found,) = load_pruner(str(folder), dtype=dtype, device="cpu").judge(QUESTION, [passage], [""])
    return found


def test_provence_gives_what_its_formulas_give(tmp_path):
    folder = made.provence(tmp_path)
    found = judge(folder)
    keep, rank = made.provence_says(folder, QUESTION, PASSAGE)
    assert found.keep == pytest.approx(keep, abs=1e-5)
    assert found.relevance == pytest.approx(rank, abs=1e-5)
    assert len(set(np.round(found.keep, 4))) > 5
    assert load_pruner(str(folder), dtype="fp32", device="cpu").max_tokens == 64
    rough = judge(folder, dtype="bf16")
    assert rough.keep == pytest.approx(keep, abs=0.05)


def test_the_padding_of_a_batch_changes_nothing(tmp_path):
    pruner = load_pruner(str(made.provence(tmp_path)), dtype="fp32", device="cpu")
    texts = [PASSAGE, "The muse.", "rome of the river is open and open"]
    together = pruner.judge(QUESTION, texts, ["", "Rome", ""])
    for text, title, found in zip(texts, ["", "Rome", ""], together, strict=True):
        (alone,) = pruner.judge(QUESTION, [text], [title])
        assert found.keep == pytest.approx(alone.keep, abs=1e-5)
        assert found.relevance == pytest.approx(alone.relevance, abs=1e-5)


@pytest.mark.parametrize(
    ("base", "options"),
    [
        ("modernbert", {}),
        ("modernbert", {"prefix": "", "classifier_pooling": "mean"}),
        ("modernbert", {"template": False}),
        ("bert", {}),
        ("xlm-roberta", {"prefix": ""}),
    ],
)
def test_open_provence_gives_what_its_formulas_give(tmp_path, base, options):
    folder = made.open_provence(tmp_path, base, **options)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if options.get("template", True):
        pair = tokenizer.encode(QUESTION, PASSAGE)
        ids, owners, types = pair.ids, pair.sequence_ids, pair.type_ids
    else:
        parts = [tokenizer.encode(text).ids for text in (QUESTION, PASSAGE)]
        ids = [1, *parts[0], 2, *parts[1], 2]
        owners, types = [1 if len(parts[0]) + 2 <= i < len(ids) - 1 else None for i in range(len(ids))], None
    inside = [place for place, owner in enumerate(owners) if owner == 1]
    keep, rank = made.open_provence_says(folder, ids, inside, types if base == "bert" else None)
    found = judge(folder)
    assert found.keep == pytest.approx(keep, abs=1e-5)
    assert found.relevance == pytest.approx(rank, abs=1e-5)
    assert load_pruner(str(folder), dtype="fp32", device="cpu").max_tokens == 128


def test_the_window_is_what_config_and_positions_allow(tmp_path):
    for number, (longest, window) in enumerate([(64, 64), (4096, 128)]):
        folder = made.open_provence(tmp_path / str(number), "xlm-roberta", max_length=longest)
        pruner = load_pruner(str(folder), dtype="fp32", device="cpu")
        assert pruner.max_tokens == window
        (found,) = pruner.judge(QUESTION, [PASSAGE * 20], ["Rome"])
        assert (found.keep > 0).all()


def test_long_passages_are_read_in_windows_of_a_model_with_relative_positions(tmp_path):
    found = judge(made.provence(tmp_path), passage=PASSAGE * 30)
    assert len(found.keep) > 300
    assert (found.keep > 0).all()


NAMED = [
    (made.provence, ["deberta.encoder.layer.1.output.dense.weight"], {}),
    (made.provence, ["pooler.dense.bias"], {}),
    (made.provence, ["token_classifier.bias"], {}),
    (made.provence, [], {"classifier.weight": torch.zeros(3, 32)}),
    (made.provence, [], {"token_classifier.weight": torch.zeros(1, 32)}),
    (made.open_provence, ["ranking_model.classifier.weight"], {}),
    (made.open_provence, ["pruning_head.classifier.weight"], {}),
    (made.open_provence, [], {"ranking_model.model.final_norm.weight": torch.zeros(5)}),
    (made.open_provence, [], {"pruning_head.classifier.bias": torch.zeros(7)}),
]


@pytest.mark.parametrize(("make", "gone", "replaced"), NAMED)
def test_tensors_that_are_missing_or_of_another_shape_are_named(tmp_path, make, gone, replaced):
    folder = made.without(make(tmp_path), *gone, **replaced)
    with pytest.raises(ModelError) as caught:
        judge(folder)
    for name in (*gone, *replaced):
        assert name in caught.value.message
    assert caught.value.hint


def change(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "no pruner that is known.*BertForMaskedLM"),
        ({"base_model_config": None}, "lacks base_model_config"),
        ({"base_model_config": {"hidden_size": 3}}, "lacks base_model_config"),
        ({"base_model_config": {"model_type": "clip"}}, "classifies no sequences"),
        ({"base_model_config": {"model_type": "nonsense"}}, "cannot be loaded.*nonsense"),
        ({"base_model_config": {"model_type": "bert", "hidden_size": "wide"}}, "cannot be loaded"),
        ({"max_length": 8}, "reads 8 tokens at once"),
    ],
)
def test_configs_that_cannot_be(tmp_path, values, said):
    folder = made.open_provence(tmp_path)
    change(folder, **values)
    with pytest.raises(ModelError, match=said):
        judge(folder)


def test_what_a_folder_lacks(tmp_path):
    folder = made.open_provence(tmp_path / "a", template=False)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="no tokens that begin and part a pair"):
        judge(folder)
    folder = made.provence(tmp_path / "b")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        judge(folder)
    folder = made.provence(tmp_path / "c")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled weights only"):
        judge(folder)


def test_opening_one_leaves_the_random_state_alone(tmp_path):
    folder = made.open_provence(tmp_path)
    before = torch.get_rng_state()
    judge(folder)
    assert torch.equal(torch.get_rng_state(), before)

"""Token classifiers of both published families and of ragzip's own format, with tiny random weights."""

import json

import numpy as np
import pytest
import torch

from ragzip.errors import ConfigError, ModelError
from ragzip.models.token_classifier import load_token_classifier
from ragzip.models.tuned import save_tuned
from ragzip.testing.token_classifiers import tiny_token_classifier

TEXT = "The museum of Rome, open in 1759.  Not (really)!"
FAMILIES = ("bert", "xlm-roberta")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = tmp_path_factory.mktemp("classifiers")
    return {family: tiny_token_classifier(made / family, family=family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def classifier(request, folders):
    return load_token_classifier(str(folders[request.param]), dtype="fp32", device="cpu")


def reference(folder, text):
    """Ids with special tokens and the probability of every token, by transformers alone."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    given = tokenizer(text, return_tensors="pt")
    with torch.inference_mode():
        logits = AutoModelForTokenClassification.from_pretrained(folder)(**given).logits
    return given["input_ids"][0], logits.softmax(-1)[0, :, 1].numpy()


def test_one_window_gives_what_transformers_gives(classifier):
    ids, keep = reference(classifier.folder, TEXT)
    (found,) = classifier.scores([TEXT])
    assert len(found.keep) == len(ids) - 2
    np.testing.assert_allclose(found.keep, keep[1:-1], atol=1e-5)


def test_special_tokens_are_the_tokenizers_own(classifier):
    names = [classifier._text.tokenizer.id_to_token(side[0]) for side in classifier._around]
    assert names == (["[CLS]", "[SEP]"] if classifier.folder.name == "bert" else ["<s>", "</s>"])
    assert classifier._text.tokenizer.id_to_token(classifier._padding) in ("[PAD]", "<pad>")


def test_batches_and_padding_change_nothing(classifier):
    texts = [TEXT, "", "Rome", "x " * 500, "A passage. " * 30, " \n", "odd \ud800"]
    together = classifier.scores(texts)
    for text, found in zip(texts, together, strict=True):
        (alone,) = classifier.scores([text])
        np.testing.assert_array_equal(found.offsets, alone.offsets)
        np.testing.assert_allclose(found.keep, alone.keep, atol=1e-5)
        assert found.keep.dtype == np.float32 and found.offsets.shape == (len(found.keep), 2)


def test_no_window_is_longer_than_the_model_reads_and_no_token_is_left_out(classifier, monkeypatch):
    from dataclasses import replace

    widths = []

    def logits(ids, mask):
        widths.append(ids.shape[1])
        return torch.full((*ids.shape, 1), 9.0)

    (found,) = replace(classifier, _logits=logits).scores(["A passage of words, in Rome. " * 50 + "z" * 300])
    assert max(widths) <= classifier.max_tokens == 64
    assert (found.keep > 0.99).all() and len(found.keep) > 500


def test_names_of_control_tokens_in_a_text_are_text(classifier):
    text = "a [SEP] b </s> c <pad> [PAD]"
    (found,) = classifier.scores([text])
    covered = {i for a, b in found.offsets for i in range(a, b)}
    assert covered >= {i for i, c in enumerate(text) if c != " "}
    (ids,), _ = classifier._encode([text])
    controls = classifier._text.control - {classifier._text.tokenizer.token_to_id(n) for n in ("[UNK]", "<unk>")}
    assert controls.isdisjoint(ids.tolist())


def test_a_checkpoint_for_something_else_is_refused_by_its_missing_tensors(tiny_encoder_path, tiny_lm_path):
    with pytest.raises(ModelError, match=r"classifier\.bias, classifier\.weight"):
        load_token_classifier(tiny_encoder_path)
    with pytest.raises(ModelError, match=r"lack .*score\.weight"):
        load_token_classifier(tiny_lm_path)


def test_a_classifier_of_whole_texts_is_refused_though_its_tensors_fit(tmp_path):
    folder = tiny_token_classifier(tmp_path / "x")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    load_token_classifier(str(folder))
    for name in ("BertForSequenceClassification", "BertForMultipleChoice"):
        (folder / "config.json").write_text(json.dumps({**config, "architectures": [name]}), "utf-8")
        with pytest.raises(ModelError, match=f"is a {name}, which does not classify tokens"):
            load_token_classifier(str(folder))


def test_a_missing_tensor_is_named(tmp_path):
    from safetensors.torch import load_file, save_file

    path = tiny_token_classifier(tmp_path / "x") / "model.safetensors"
    tensors = load_file(path)
    del tensors["bert.encoder.layer.1.output.dense.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"layer\.1\.output\.dense\.weight"):
        load_token_classifier(str(tmp_path / "x"))


def test_another_number_of_labels_is_refused(tmp_path):
    folder = tiny_token_classifier(tmp_path / "x", labels=9)
    with pytest.raises(ModelError, match="tells 9 labels apart, not 2"):
        load_token_classifier(str(folder))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    del config["id2label"], config["label2id"]
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ModelError, match=r"classifier\.weight \[9, 32\] for \[2, 32\]"):
        load_token_classifier(str(folder))


def test_other_trouble_is_told(tmp_path):
    with pytest.raises(ConfigError):
        load_token_classifier("x", dtype="int4")
    with pytest.raises(ModelError):
        load_token_classifier(str(tmp_path / "nowhere"))
    folder = tiny_token_classifier(tmp_path / "x")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        load_token_classifier(str(folder))


@pytest.mark.parametrize("rows", [1, 2])
def test_own_weights_are_a_base_and_a_head(tmp_path, tiny_encoder_path, rows):
    from ragzip.models import load_encoder

    weight = torch.randn(rows, 32, generator=torch.Generator().manual_seed(0))
    tensors = {"heads.keep.weight": weight, "heads.keep.bias": torch.zeros(rows)}
    save_tuned(
        tmp_path / "own", architecture="token_classifier", base=tiny_encoder_path, max_tokens=48, tensors=tensors
    )
    random_state = torch.get_rng_state()
    classifier = load_token_classifier(str(tmp_path / "own"), dtype="fp32", device="cpu")
    assert torch.equal(torch.get_rng_state(), random_state)
    assert classifier.max_tokens == 48
    (found,) = classifier.scores([TEXT])
    encoder = load_encoder(tiny_encoder_path, dtype="fp32", device="cpu")
    ((ids, _),) = encoder.tokens([TEXT])
    if len(ids) <= 46:
        ((vectors, _),) = encoder.token_vectors([ids])
        logits = torch.from_numpy(vectors) @ weight.half().float().T
        want = logits[:, 0].sigmoid() if rows == 1 else logits.softmax(-1)[:, 1]
        np.testing.assert_allclose(found.keep, want.numpy(), atol=1e-3)
    assert len(found.keep) == len(ids)


def test_own_weights_of_another_kind_are_refused(tmp_path, tiny_encoder_path):
    def made(name, architecture, tensors):
        folder = tmp_path / name
        save_tuned(folder, architecture=architecture, base=tiny_encoder_path, max_tokens=48, tensors=tensors)
        return str(folder)

    head = {"heads.keep.weight": torch.ones(1, 32)}
    with pytest.raises(ModelError, match="provence"):
        load_token_classifier(made("a", "provence", head))
    with pytest.raises(ModelError, match=r"lack heads\.keep\.weight"):
        load_token_classifier(made("b", "token_classifier", {"heads.rank.weight": torch.ones(1, 32)}))
    with pytest.raises(ModelError, match="tells 3 labels apart"):
        load_token_classifier(made("c", "token_classifier", {"heads.keep.weight": torch.ones(3, 32)}))


def test_is_loaded_once(folders):
    name = str(folders["bert"])
    assert load_token_classifier(name) is load_token_classifier(name)


def test_special_tokens_of_a_tokenizer_without_a_template(tmp_path):
    folder = tiny_token_classifier(tmp_path / "x")
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "post_processor": None}), "utf-8")
    assert load_token_classifier(str(folder))._around == ([2], [3])

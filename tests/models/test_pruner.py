"""What a pruner reads: every token of every passage and question, in windows that fit, and nothing twice as control."""

from __future__ import annotations

import dataclasses
import itertools
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ragzip.errors import ConfigError, ModelError
from ragzip.models import load_pruner
from ragzip.models.tuned import open_tuned
from ragzip.testing.models import tiny_encoder
from ragzip.testing.pruners import tiny_pruner
from ragzip.testing.strategies import texts
from ragzip.testing.token_classifiers import tiny_token_classifier

CLS, SEP = 1, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_encoder_path):
    return tiny_pruner(tmp_path_factory.mktemp("pruner"), tiny_encoder_path)


@pytest.fixture(scope="module")
def pruner(folder):
    return load_pruner(str(folder), dtype="fp32", device="cpu")


def value(ids):
    """What the recording model says of a token, from its id alone."""
    return (ids.float() % 89 + 1) / 90


def recording(pruner):
    """A pruner whose model notes what it reads, and what it reads."""
    rows = []

    def forward(ids, mask, types):
        inside = torch.ones_like(ids) if mask is None else mask
        for row, keep, kinds in zip(ids, inside, types, strict=True):
            rows.append((row[keep.bool()].tolist(), kinds[keep.bool()].tolist()))
        return value(ids), value(ids.sum(dim=1))

    return dataclasses.replace(pruner, _forward=forward), rows


def encoded(pruner, text):
    """The ids of a text that is text and nothing else."""
    return pruner._text.encode([text])[0]


passages = st.lists(st.tuples(st.one_of(texts(), texts().map(lambda t: t * 9)), texts(12)), min_size=1, max_size=3)


@settings(max_examples=60)
@given(st.one_of(texts(40), texts().map(lambda t: t * 5)), passages)
def test_every_token_is_read_and_gets_the_score_of_its_own_place(pruner, question, given_passages):
    spy, rows = recording(pruner)
    bodies, titles = zip(*given_passages, strict=True)
    found = spy.judge(question, bodies, titles)
    best = max((value(torch.tensor(sum(ids))).item() for ids, _ in rows), default=0.0)
    for text, one in zip(bodies, found, strict=True):
        ids = torch.tensor(encoded(pruner, text))
        assert one.keep.dtype == np.float32
        assert one.keep == pytest.approx(value(ids).numpy())
        assert one.offsets.shape == (len(ids), 2)
        assert (one.offsets >= 0).all()
        assert (one.offsets <= len(text)).all()
        assert (np.diff(one.offsets[:, 1]) >= 0).all()
        assert (one.relevance > 0) == bool(len(ids))
        assert one.relevance <= best + 1e-6
    asked = list(itertools.chain(*dict.fromkeys(tuple(ids[1 : ids.index(SEP)]) for ids, _ in rows)))
    if rows and len(set(encoded(pruner, question))) == len(encoded(pruner, question)):
        assert sorted(asked) == sorted(encoded(pruner, question))
    for ids, kinds in rows:
        assert len(ids) <= pruner.max_tokens
        middle = ids.index(SEP)
        assert (ids[0], ids[-1]) == (CLS, SEP)
        assert kinds == [0] * (middle + 1) + [1] * (len(ids) - middle - 1)
        assert not {0, CLS, SEP} & {*ids[1:middle], *ids[middle + 1 : -1]}


def test_the_best_part_of_a_long_question_and_of_a_long_passage_counts(pruner):
    needle, hay = encoded(pruner, " quick")[0], "the river runs. " * 40

    def forward(ids, mask, types):
        here = ((ids == needle) & (types == 0)).any(dim=1) & ((ids == needle) & (types == 1)).any(dim=1)
        return here[:, None].float().expand(ids.shape) * (ids == needle).float(), here.float()

    spy = dataclasses.replace(pruner, _forward=forward)
    found, none = spy.judge(f"{hay} quick {hay}", [f"{hay} quick {hay}", hay], ["", ""])
    assert (found.relevance, none.relevance) == (1.0, 0.0)
    assert found.keep.sum() == 1
    (place,) = np.flatnonzero(found.keep)
    start, end = found.offsets[place]
    assert "quick".startswith(f"{hay} quick {hay}"[start:end].strip())


def test_windows_see_their_surroundings_and_end_with_sentences(pruner):
    spy, rows = recording(pruner)
    text = " ".join(f"Sentence {number} is here." for number in range(30))
    spy.judge("Where?", [text], ["Title"])
    ids = encoded(pruner, text)
    led = encoded(pruner, "Title:")
    bodies = [row[row.index(SEP) + 1 : -1] for row, _ in rows]
    assert all(body[: len(led)] == led for body in bodies)
    bodies = [body[len(led) :] for body in bodies]
    assert sum(map(len, bodies)) > len(ids)  # what stands around a window is read with it
    assert all(str(body)[1:-1] in str(ids) for body in bodies)


def test_a_batch_gives_what_its_passages_give_alone(pruner):
    question, bodies = "Which city is the capital?", ["The fox.", "", "A language model reads it. " * 12, "1, 22, 333"]
    titles = ["", "Empty", "Models", "Numbers and more of them"]
    together = pruner.judge(question, bodies, titles)
    assert pruner.judge(question, [], []) == []
    for text, title, found in zip(bodies, titles, together, strict=True):
        (alone,) = pruner.judge(question, [text], [title])
        assert found.keep == pytest.approx(alone.keep, abs=1e-5)
        assert found.relevance == pytest.approx(alone.relevance, abs=1e-5)
    with ThreadPoolExecutor(3) as pool:
        for again in pool.map(lambda _: pruner.judge(question, bodies, titles), range(3)):
            assert all(
                (a.keep == b.keep).all() and a.relevance == b.relevance for a, b in zip(again, together, strict=True)
            )


def test_it_gives_what_its_encoder_and_heads_give(pruner, folder):
    tuned = open_tuned(str(folder), architecture="provence", dtype="fp32", device="cpu")
    question, body = encoded(pruner, "the fox?"), encoded(pruner, "The fox jumps over the dog.")
    ids = torch.tensor([[CLS, *question, SEP, *body, SEP]])
    types = torch.tensor([[0] * (len(question) + 2) + [1] * (len(body) + 1)])
    with torch.inference_mode():
        hidden = tuned.backbone(input_ids=ids, token_type_ids=types).last_hidden_state[0]
        keep, rank = tuned.heads["keep"](hidden).sigmoid()[:, 0], tuned.heads["rank"](hidden[0]).sigmoid()
    (found,) = pruner.judge("the fox?", ["The fox jumps over the dog."], [""])
    assert found.keep == pytest.approx(keep[len(question) + 2 : -1].numpy(), abs=1e-5)
    assert found.relevance == pytest.approx(rank.item(), abs=1e-5)


@pytest.mark.parametrize("text", ["a\ud800b", "[SEP] [CLS][PAD]", "\ud83d\ude00 [SEP]\udfff x", "漢字です。مرحبا"])
def test_offsets_of_odd_text_are_places_in_it(pruner, text):
    (found,) = pruner.judge(text, [text], [text])
    covered = {place for start, end in found.offsets for place in range(start, end)}
    assert covered == set(range(len(text)))
    assert (found.keep > 0).all()


def test_what_is_no_number_is_not_passed_over(pruner):
    broken = dataclasses.replace(
        pruner, _forward=lambda ids, mask, types: (value(ids), value(ids.sum(dim=1)) * torch.nan)
    )
    assert np.isnan([found.relevance for found in broken.judge("Who?", ["A b c.", "D e f."], ["", ""])]).all()


def test_loaded_once_and_anew_when_the_file_changes(tmp_path, tiny_encoder_path):
    name = str(tiny_pruner(tmp_path, tiny_encoder_path, seed=1))
    first = load_pruner(name, dtype="fp32", device="cpu")
    assert load_pruner(name, dtype="fp32", device="cpu") is first
    assert (first.max_tokens, first.dtype, first.device, first.folder) == (64, "float32", "cpu", tmp_path)
    tiny_pruner(tmp_path, tiny_encoder_path, seed=2)
    assert load_pruner(name, dtype="fp32", device="cpu") is not first
    second = load_pruner(name, dtype="fp32", device="cpu")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert load_pruner(name, dtype="fp32", device="cpu") is not second


def rewritten(folder, change):
    """Other tensors, and the list of them in the config."""
    path, config = folder / "model.safetensors", folder / "config.json"
    tensors = change(load_file(str(path)))
    save_file(tensors, str(path))
    config.write_text(json.dumps({**json.loads(config.read_text()), "tensors": sorted(tensors)}))
    return str(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {k: v for k, v in t.items() if "rank" not in k}, r"lack heads\.rank\.weight"),
        (lambda t: {k: v for k, v in t.items() if k != "heads.keep.bias"}, r"lack heads\.keep\.bias"),
        (
            lambda t: {**t, "heads.rank.weight": torch.zeros(2, 32), "heads.rank.bias": torch.zeros(2)},
            "head 'rank' .* gives 2 numbers",
        ),
        (lambda t: {**t, "heads.rank.weight": torch.zeros(1, 9)}, r"head 'rank' .* has shape \(1, 9\)"),
    ],
)
def test_heads_that_do_not_fit_are_named(tmp_path, tiny_encoder_path, change, said):
    name = rewritten(tiny_pruner(tmp_path, tiny_encoder_path), change)
    with pytest.raises(ModelError, match=said):
        load_pruner(name, dtype="fp32", device="cpu")


def test_weights_of_another_kind(tmp_path, tiny_encoder_path):
    with pytest.raises(ModelError, match=r"no pruner that is known: .*BertModel"):
        load_pruner(tiny_encoder_path)
    with pytest.raises(ModelError, match=r"no pruner that is known: .*BertForTokenClassification"):
        load_pruner(str(tiny_token_classifier(tmp_path / "tokens")))
    narrow = tiny_pruner(tmp_path / "narrow", tiny_encoder_path, window=8)
    with pytest.raises(ModelError, match="reads 8 tokens at once"):
        load_pruner(str(narrow))
    other = tiny_encoder(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "type_vocab_size": 1}))
    tensors = load_file(str(other / "model.safetensors"))
    name = "embeddings.token_type_embeddings.weight"
    save_file({**tensors, name: tensors[name][:1].clone()}, str(other / "model.safetensors"), {"format": "pt"})
    with pytest.raises(ModelError, match="two token types"):
        load_pruner(str(tiny_pruner(tmp_path / "types", other)))


@pytest.mark.parametrize(("options", "path"), [({"dtype": "int4"}, "dtype"), ({"device": "abacus"}, "device")])
def test_options_out_of_range(folder, options, path):
    with pytest.raises(ConfigError) as caught:
        load_pruner(str(folder), **options)
    assert caught.value.path == path


def test_a_narrow_format_gives_nearly_the_same(folder, pruner):
    (rough,) = load_pruner(str(folder), dtype="bf16", device="cpu").judge("the fox?", ["The fox jumps over."], [""])
    (fine,) = pruner.judge("the fox?", ["The fox jumps over."], [""])
    assert rough.keep == pytest.approx(fine.keep, abs=0.05)
    assert rough.relevance == pytest.approx(fine.relevance, abs=0.05)

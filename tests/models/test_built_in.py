"""The real built-in models. Few tests, as they take seconds each."""

import subprocess
import sys

import numpy as np
import pytest

from ragzip import models
from ragzip.models import catalogue, locate

pytestmark = pytest.mark.models


def test_encoder_knows_what_means_the_same():
    encoder = models.load_encoder(catalogue.EMBEDDER)
    spec = models.find(catalogue.EMBEDDER)
    assert (encoder.dimensions, encoder.max_tokens) == (spec.dimensions, spec.window)
    near, far = "A cat sat on the mat.", "The central bank raised interest rates."
    query, a, b = encoder.encode(["The feline was sitting on a rug.", near, far])
    assert query @ a > 0.5 > 0.2 > query @ b
    fp32 = models.load_encoder(catalogue.EMBEDDER, dtype="fp32").encode([near, far, "", "x" * 5000])
    auto = encoder.encode([near, far, "", "x" * 5000])
    assert ((fp32 * auto).sum(axis=1) > 0.998).all()


def test_encoder_gives_what_sentence_transformers_gives():
    """Reference vectors of sentence-transformers 6.2, fp32: the first five numbers of each."""
    vectors = models.load_encoder(catalogue.EMBEDDER, dtype="fp32").encode(["This is a test.", "", "Größe 東京"])
    assert np.allclose(vectors[:, :5], REFERENCE, atol=2e-4)


REFERENCE = [
    [0.03359, 0.01051, -0.0175, 0.02935, -0.00942],
    [-0.11884, 0.0483, -0.00255, -0.01101, 0.05195],
    [0.07263, 0.05564, 0.03438, -0.03349, -0.0955],
]


def test_generator_is_what_the_catalogue_says():
    lm = models.load_causal_lm(catalogue.GENERATOR)
    spec = models.find(catalogue.GENERATOR)
    assert (lm.dimensions, lm.window) == (spec.dimensions, spec.window)
    assert lm.space == catalogue.GENERATOR
    rendered = lm.tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert rendered.endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")


def test_numbers_are_cut_into_digits():
    tokens = models.load_tokenizer(catalogue.GENERATOR).encode("In 1984,  42").tokens
    assert tokens == ["In", "Ġ", "1", "9", "8", "4", ",", "ĠĠ", "4", "2"]


def test_packages_are_what_they_are_known_by():
    for spec in models.all_models():
        path = locate.package_path(spec)
        if path is not None:
            locate.check(spec, path if spec.is_gguf else path.parent / spec.weights)
            assert spec.package not in sys.modules


def test_loading_prints_nothing():
    code = (
        "from ragzip import models; models.load_causal_lm(models.GENERATOR);"
        "models.load_encoder(models.EMBEDDER).encode(['a'])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

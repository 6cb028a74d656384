import pytest

from tests.compressors.hashed_judge import HashedJudge
from tests.compressors.hashed_reader import HashedReader
from tests.matrix import HashedDual, HashedLosses, HashedPruner, HashedTokens, HashedWords, HashedWriter


@pytest.fixture(autouse=True)
def encoder(monkeypatch, request):
    """Sentence encoders without weights, except for tests of real ones (``real_encoder = True`` in their class)."""
    if "models" in request.keywords or getattr(request.cls, "real_encoder", False):
        return None
    stand_in = HashedWords()
    monkeypatch.setattr("ragzip.models.load_encoder", lambda name, **options: stand_in)
    return stand_in


@pytest.fixture
def narrow(monkeypatch):
    """A sentence encoder without weights that reads six words, and the two tokens around them."""

    class Narrow(HashedWords):
        max_tokens = 8

    stand_in = Narrow()
    monkeypatch.setattr("ragzip.models.load_encoder", lambda name, **options: stand_in)
    return stand_in


@pytest.fixture(autouse=True)
def classifier(monkeypatch, request):
    """Token classifiers without weights, except for tests of real ones (``real_classifier = True`` in their class)."""
    if "models" in request.keywords or getattr(request.cls, "real_classifier", False):
        return None
    stand_in = HashedTokens()
    monkeypatch.setattr("ragzip.models.token_classifier.load_token_classifier", lambda name, **options: stand_in)
    return stand_in


@pytest.fixture(autouse=True)
def writer(monkeypatch, request):
    """Language models without weights that write, except for tests of real ones (``real_writer = True``)."""
    if "models" in request.keywords or getattr(request.cls, "real_writer", False):
        return None
    stand_in = HashedWriter()
    monkeypatch.setattr("ragzip.compressors._writer.load_writer", lambda name, **options: stand_in)
    return stand_in


@pytest.fixture(autouse=True)
def losses(monkeypatch, request):
    """Readers of perplexities without weights, for the gate, except for tests of real ones (``real_writer = True``)."""
    if "models" in request.keywords or getattr(request.cls, "real_writer", False):
        return None
    stand_in = HashedLosses()
    monkeypatch.setattr("ragzip.compressors.gate.load_perplexity", lambda name, **options: stand_in)
    monkeypatch.setattr("ragzip.compressors._expansion.load_perplexity", lambda name, **options: stand_in)
    return stand_in


@pytest.fixture(autouse=True)
def dual(monkeypatch, request):
    """Dual encoders without weights, except for tests of real ones (``real_dual = True`` in their class)."""
    if "models" in request.keywords or getattr(request.cls, "real_dual", False):
        return None
    stand_in = HashedDual()
    monkeypatch.setattr("ragzip.models.dual_encoder.load_dual_encoder", lambda name, **options: stand_in)
    return stand_in


@pytest.fixture(autouse=True)
def reader(monkeypatch, request):
    """Language models without weights that read, except for tests of real ones (``real_reader = True``)."""
    if "models" in request.keywords or getattr(request.cls, "real_reader", False):
        return None
    stand_in = HashedReader()
    monkeypatch.setattr("ragzip.models.perplexity.load_perplexity", lambda name, **options: stand_in)
    return stand_in


@pytest.fixture(autouse=True)
def pruner(monkeypatch, request):
    """Cross-encoders without weights, except for tests of real ones (``real_pruner = True`` in their class)."""
    if "models" in request.keywords or getattr(request.cls, "real_pruner", False):
        return None
    stand_in = HashedPruner()
    monkeypatch.setattr("ragzip.models.load_pruner", lambda name, **options: stand_in)
    return stand_in


@pytest.fixture(autouse=True)
def judge(monkeypatch, request):
    """Judges of sentences without weights, except for tests of real ones (``real_judge = True`` in their class)."""
    if "models" in request.keywords or getattr(request.cls, "real_judge", False):
        return None
    stand_in = HashedJudge()
    monkeypatch.setattr("ragzip.compressors.exit.load_judge", lambda name, *options, **more: stand_in)
    return stand_in

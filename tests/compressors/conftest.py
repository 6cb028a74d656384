import pytest

from tests.matrix import HashedWords


@pytest.fixture(autouse=True)
def encoder(monkeypatch, request):
    """Sentence encoders without weights, except for tests of real ones (``real_encoder = True`` in their class)."""
    if "models" in request.keywords or getattr(request.cls, "real_encoder", False):
        return None
    stand_in = HashedWords()
    monkeypatch.setattr("ragzip.models.load_encoder", lambda name, **options: stand_in)
    return stand_in

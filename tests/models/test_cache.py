"""A model in the cache is whole or not there: kills, races, damage, full disks."""

import errno
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from ragzip import models
from ragzip.errors import ModelError
from ragzip.models import cache, convert, digests
from ragzip.models.cache import model_folder
from tests.models import tools
from tests.models.conftest import sha

RESOLVE = """
from ragzip.models import resolve
print(resolve(spec.name, on_status=lambda line: print("status:", line, flush=True)), flush=True)
"""


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in (folder / "models").iterdir() if p.name.startswith(".tmp")]


def test_conversion_happens_once(installed, own_cache, monkeypatch):
    first = models.resolve(tools.NAME)
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(convert, "convert", lambda *_, **__: pytest.fail("converted again"))
    assert models.resolve(tools.NAME) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    assert leftovers(own_cache) == []


def test_record_says_where_it_came_from(installed):
    folder = models.resolve(tools.NAME)
    record = json.loads((folder / "ragzip.json").read_text())
    assert record["source_sha256"] == installed.sha256
    assert record["source"] == "tiny-instruct-package"
    files = {p.name for p in folder.iterdir()} - {"ragzip.json"}
    assert set(record["files"]) == files
    for name, entry in record["files"].items():
        assert entry == {"bytes": (folder / name).stat().st_size, "sha256": sha(folder / name)}


def test_status_lines_are_told(installed):
    lines = []
    models.resolve(tools.NAME, on_status=lines.append)
    assert any("converting tiny-instruct" in line for line in lines)
    lines.clear()
    models.resolve(tools.NAME, on_status=lines.append)
    assert lines == []


def test_two_processes_convert_once(installed, site):
    (site / "hold").touch()
    first, second = (tools.child(site, installed, RESOLVE) for _ in range(2))
    wait_for(site / "converted")
    time.sleep(0.3)  # both are under way: one converts, the other waits for it
    (site / "hold").unlink()
    outs = [process.communicate(timeout=60) for process in (first, second)]
    assert [p.returncode for p in (first, second)] == [0, 0], outs
    assert {out.splitlines()[-1] for out, _ in outs} == {str(model_folder(tools.NAME))}
    assert (site / "converted").read_text() == "x"


def test_killed_conversion_leaves_nothing_that_is_used(installed, site, own_cache):
    (site / "hold").touch()
    process = tools.child(site, installed, RESOLVE)
    wait_for(site / "converted")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert not model_folder(tools.NAME).exists()
    assert len(leftovers(own_cache)) == 1
    assert models.status(tools.NAME) == "package"

    folder = models.resolve(tools.NAME)  # the real conversion, in this process
    assert (folder / "tokenizer.json").is_file()
    assert leftovers(own_cache) == []


def wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def cut_short(folder):
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)


def flip_a_byte(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 255
    path.write_bytes(data)
    later = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(later, later))


def remove_a_file(folder):
    (folder / "tokenizer.json").unlink()


def break_the_record(folder):
    (folder / "ragzip.json").write_text('{"format": 1,')


def record_of_another_source(folder):
    record = json.loads((folder / "ragzip.json").read_text())
    (folder / "ragzip.json").write_text(json.dumps({**record, "source_sha256": "0" * 64}))


def record_of_another_format(folder):
    record = json.loads((folder / "ragzip.json").read_text())
    (folder / "ragzip.json").write_text(json.dumps({**record, "format": 99}))


def empty_it(folder):
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGE = [
    cut_short,
    flip_a_byte,
    remove_a_file,
    break_the_record,
    record_of_another_source,
    record_of_another_format,
    empty_it,
]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_folder_is_made_again(installed, damage):
    folder = models.resolve(tools.NAME)
    before = sha(folder / "model.safetensors")
    damage(folder)
    assert models.status(tools.NAME) == "package"
    assert models.resolve(tools.NAME) == folder
    assert sha(folder / "model.safetensors") == before
    assert models.status(tools.NAME) == "cache"


def test_damaged_folder_that_cannot_be_made_again_is_reported(installed, site, monkeypatch):
    folder = models.resolve(tools.NAME)
    shutil.rmtree(site / tools.PACKAGE)
    cut_short(folder)
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"damaged in the cache \(model\.safetensors has 1000 bytes, not \d+\)"):
        models.resolve(tools.NAME)


def test_a_loaded_model_is_not_served_after_its_files_changed(installed):
    folder = models.resolve(tools.NAME)
    first = models.load_tokenizer(tools.NAME)
    assert models.load_tokenizer(tools.NAME) is first
    remove_a_file(folder)
    models.resolve(tools.NAME)
    assert models.load_tokenizer(tools.NAME) is not first


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_while_converting_is_one_clear_error(installed, own_cache, monkeypatch):
    monkeypatch.setattr(convert, "_save", full_disk)
    with pytest.raises(ModelError, match="no space left in the cache folder") as caught:
        models.resolve(tools.NAME)
    assert "RAGZIP_CACHE" in caught.value.hint
    assert not model_folder(tools.NAME).exists()
    assert leftovers(own_cache) == []
    monkeypatch.undo()


def test_too_little_space_is_noticed_before_converting(installed, own_cache, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    monkeypatch.setattr(convert, "convert", lambda *_, **__: pytest.fail("converted"))
    with pytest.raises(ModelError, match="no space left"):
        models.resolve(tools.NAME)


def test_failed_conversion_leaves_nothing(installed, own_cache, monkeypatch):
    monkeypatch.setattr(convert, "convert", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        models.resolve(tools.NAME)
    assert leftovers(own_cache) == []
    assert not model_folder(tools.NAME).exists()


def test_cache_that_cannot_be_written_says_so(installed, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAGZIP_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelError, match="cannot be written") as caught:
        models.resolve(tools.NAME)
    assert "RAGZIP_CACHE" in caught.value.hint


def test_stuck_lock_is_an_error_and_not_a_wait_for_ever(installed, own_cache, monkeypatch):
    from filelock import FileLock

    monkeypatch.setattr(cache, "LOCK_SECONDS", 0.2)
    (own_cache / "locks").mkdir(parents=True)
    lines = []
    with FileLock(own_cache / "locks" / f"{tools.NAME}.lock"), pytest.raises(ModelError, match="another process"):
        models.resolve(tools.NAME, on_status=lines.append)
    assert lines == ["waiting for another process that is preparing tiny-instruct"]


def test_cache_folder_is_the_platforms_without_the_variable(monkeypatch):
    monkeypatch.setenv("RAGZIP_CACHE", "  ")
    assert models.cache_dir().name == "ragzip"
    assert models.cache_dir().is_absolute()
    monkeypatch.setenv("RAGZIP_CACHE", "~/somewhere")
    assert models.cache_dir() == Path.home() / "somewhere"


def test_digest_is_computed_once_for_each_state_of_a_file(tmp_path, monkeypatch):
    file, memory = tmp_path / "f", tmp_path / "memory.json"
    file.write_bytes(b"abc")
    first = digests.digest(file, memory)
    assert first == sha(file)
    digests._known.clear()
    real = digests.hashlib.file_digest
    monkeypatch.setattr(digests.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
    assert digests.digest(file, memory) == first
    monkeypatch.setattr(digests.hashlib, "file_digest", real)
    file.write_bytes(b"abcd")
    assert digests.digest(file, memory) == sha(file) != first


@pytest.mark.parametrize("rubbish", ["", "[]", '{"a": 3}', "{", "\0"])
def test_broken_memory_of_digests_is_ignored(tmp_path, rubbish):
    file, memory = tmp_path / "f", tmp_path / "memory.json"
    file.write_bytes(b"abc")
    memory.write_text(rubbish)
    digests._known.clear()
    assert digests.digest(file, memory) == sha(file)


def test_memory_of_digests_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "_MOST", 3)
    for i in range(6):
        (tmp_path / str(i)).write_text(str(i))
        digests.digest(tmp_path / str(i), tmp_path / "memory.json")
    assert len(json.loads((tmp_path / "memory.json").read_text())) == 3

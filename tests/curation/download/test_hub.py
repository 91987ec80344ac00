"""Data sets from the hub: a local stand-in for it, and the real huggingface_hub."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from file_server import FileServer

from geozero.common.errors import InputError
from geozero.curation.download import http
from geozero.curation.download.hub import allow_hub, list_repository
from geozero.sources.catalogue import Way

REPOSITORY = "somebody/images"
FILES = {"data/train.parquet": b"p" * 300_000, "README.md": b"# images", "notes.json": b"{}", "other.bin": b"no"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    from huggingface_hub import constants

    with FileServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        server.repositories[REPOSITORY] = dict(FILES)
        yield server


def way(**changes: object) -> Way:
    values = {
        "kind": "hub",
        "by": "somebody",
        "seen": "2026-11-30",
        "where": "a test",
        "repo": REPOSITORY,
        "include": ("data/*.parquet", "*.json"),
    }
    return Way.model_validate(values | changes)


def fetch(into: Path, **changes: object) -> tuple[list[str], list[tuple[int, int]]]:
    counted: list[tuple[int, int]] = []
    files, headers = list_repository(way(**changes))
    for file in files:
        assert (
            http.fetch_file(file, into, lambda *n: counted.append(n), threading.Event(), headers) == "size and checksum"
        )
    return [file.name for file in files], counted


def contents(server: FileServer) -> list[str]:
    return [path.rpartition("/")[2] for method, path, _ in server.asked if method == "GET" and "/resolve/" in path]


def test_the_named_files_arrive_once_and_are_counted(hub: FileServer, tmp_path: Path) -> None:
    names, counted = fetch(tmp_path)
    assert names == ["data/train.parquet", "notes.json"]
    assert {name: (tmp_path / name).read_bytes() for name in names} == {name: FILES[name] for name in names}
    assert not (tmp_path / "other.bin").exists() and sorted(contents(hub)) == ["notes.json", "train.parquet"]
    assert sum(n for _, n in counted) == sum(len(FILES[name]) for name in names)
    hub.asked.clear()
    assert fetch(tmp_path)[0] == names and contents(hub) == []


def test_another_process_resumes(hub: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TRIES", 1)
    monkeypatch.setattr(http, "BLOCK", 1000)
    hub.cuts = [100_000, 0, 0]
    with pytest.raises(InputError, match="run the command again"):
        fetch(tmp_path, include=("data/*",))
    hub.cuts, hub.asked = [], []
    fetch(tmp_path, include=("data/*",))
    assert (tmp_path / "data/train.parquet").read_bytes() == FILES["data/train.parquet"]
    assert [span for *_, path, span in hub.asked if "/resolve/" in path] == ["bytes=100000-"]


def test_a_damaged_file_is_fetched_again(hub: FileServer, tmp_path: Path) -> None:
    fetch(tmp_path)
    (tmp_path / "data/train.parquet").write_bytes(b"q" * 300_000)
    fetch(tmp_path)
    assert (tmp_path / "data/train.parquet").read_bytes() == FILES["data/train.parquet"]


@pytest.mark.parametrize("name", ["data/train.parquet", "notes.json"])
def test_another_checksum_than_the_listed_one_leaves_no_file(hub: FileServer, tmp_path: Path, name: str) -> None:
    hub.lies[REPOSITORY] = {"oid": "0" * 40, "lfs": {"oid": "0" * 64, "size": len(FILES[name]), "pointerSize": 1}}
    if name == "notes.json":
        hub.lies[REPOSITORY] = {"oid": "0" * 40}
    with pytest.raises(InputError, match="does not have the published checksum"):
        fetch(tmp_path, include=(name,))
    assert not (tmp_path / name).exists()


def test_a_login_goes_along(hub: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert list_repository(way())[1]["authorization"] == "Bearer hf_mine"


@pytest.mark.parametrize("name", ["../evil.json", "/etc/evil.json", "a\\..\\evil.json", ".git/evil.json", "a\nb.json"])
def test_a_hostile_name_is_refused_before_anything_is_fetched(hub: FileServer, tmp_path: Path, name: str) -> None:
    hub.repositories[REPOSITORY][name] = b"evil"
    with pytest.raises(InputError, match="holds a file of a hostile name"):
        fetch(tmp_path / "inside")
    assert list(tmp_path.rglob("*")) == [] and contents(hub) == []


def test_names_are_taken_literally(hub: FileServer, tmp_path: Path) -> None:
    hub.repositories[REPOSITORY] = {"a[1].json": b"1", "a1.json": b"2"}
    assert fetch(tmp_path, include=("a[[]1].json",))[0] == ["a[1].json"]
    assert not (tmp_path / "a1.json").exists()


def test_a_link_in_place_of_a_file_is_not_followed(hub: FileServer, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_bytes(b"mine")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/notes.json").symlink_to(outside)
    fetch(tmp_path / "set")
    assert outside.read_bytes() == b"mine" and (tmp_path / "set/notes.json").read_bytes() == b"{}"


def test_a_moved_or_closed_data_set_says_so(hub: FileServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it is gone"):
        fetch(tmp_path, repo="nobody/nothing")
    with pytest.raises(InputError, match="none of the files expected"):
        fetch(tmp_path, include=("*.rar",))


def test_no_connection_is_one_line(tmp_path: Path, hub: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    with FileServer() as gone:
        pass
    monkeypatch.setattr(constants, "ENDPOINT", gone.url)
    with pytest.raises(InputError, match=r"the connection failed .*run the command again"):
        fetch(tmp_path)


def test_the_user_s_offline_switch_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        allow_hub()
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY", raising=False)
    allow_hub()
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"

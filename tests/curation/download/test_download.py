"""`geozero download`: several sets at once, what is printed, and what has arrived."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from file_server import FileServer
from fixtures import make_scene_sets, make_sources

from geozero.common.errors import InputError
from geozero.curation.download import download as command
from geozero.curation.download import http
from geozero.sources import SOURCES
from geozero.sources.catalogue import Entry, Way, catalogue


def zipped(directory: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(directory.rglob("*")):
            archive.write(path, path.relative_to(directory))
    return buffer.getvalue()


def entry(way: dict[str, Any], **counts: int) -> Entry:
    common = {"by": "somebody", "seen": "2026-11-30", "where": "a test"}
    return Entry.model_validate({"page": "https://example.org", "ways": [common | way], **counts})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(http, "PAUSE", 0.0)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    with FileServer() as running:
        yield running


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, server: FileServer, tmp_path: Path) -> dict[str, Entry]:
    """A small catalogue: RESISC45 by HTTP, RSVQA-LR from a record, AID by hand."""
    make_scene_sets.resisc45(tmp_path / "made/resisc45")
    make_sources.rsvqa_lr(tmp_path / "made/rsvqa")
    archive, lists = zipped(tmp_path / "made/resisc45"), zipped(tmp_path / "made/rsvqa")
    server.files |= {"/resisc45.zip": archive, "/lr.zip": lists, "/train.txt": b"airplane_001.jpg\n"}
    record = {"id": 1, "files": [{"key": "lr.zip", "checksum": "md5:" + hashlib.md5(lists).hexdigest()}]}
    record["files"][0]["links"] = {"self": f"{server.url}/lr.zip"}  # type: ignore[index]
    server.files["/records/1"] = json.dumps(record).encode()
    monkeypatch.setattr("pooch.downloaders.doi_to_url", lambda doi, **settings: "https://zenodo.org/records/1")
    monkeypatch.setattr("pooch.downloaders.ZenodoRepository.base_api_url", f"{server.url}/records")
    files = [
        {
            "name": "NWPU-RESISC45.zip",
            "url": f"{server.url}/resisc45.zip",
            "hash": "md5:" + hashlib.md5(archive).hexdigest(),
        },
        {"name": "resisc45-train.txt", "url": f"{server.url}/train.txt", "extra": True},
    ]
    made = {
        "resisc45": entry({"kind": "http", "files": files}, images=15),
        "rsvqa_lr": entry({"kind": "zenodo", "doi": "10.5281/zenodo.1", "files": [{"name": "lr.zip"}]}),
        "aid": entry({"kind": "manual", "steps": ["get it", "unpack it into {directory}/AID"]}, images=10),
    }
    monkeypatch.setattr(command, "entry", lambda source: made[source])
    return made


def run(sources: list[str], root: Path, **settings: Any) -> tuple[bool, list[tuple[str, ...]]]:
    lines: list[tuple[str, ...]] = []
    return command.download(sources, root, on_line=lines.append, **settings), lines


def test_sets_arrive_side_by_side_and_are_counted(known: dict[str, Entry], tmp_path: Path) -> None:
    root = tmp_path / "archives"
    fine, lines = run(["resisc45", "rsvqa_lr"], root)
    assert fine and lines[:2] == [
        ("resisc45", "fetched", str(root / "resisc45/NWPU-RESISC45.zip"), "md5"),
        ("rsvqa_lr", "fetched", str(root / "rsvqa_lr/lr.zip"), "md5"),
    ]
    assert lines[2] == ("resisc45", "complete", "15 of 15 images, 15 samples")
    assert lines[3][:2] == ("rsvqa_lr", "found")
    assert not (root / "resisc45/resisc45-train.txt").exists()


def test_a_second_run_fetches_nothing_and_extras_are_asked_for(
    known: dict[str, Entry], server: FileServer, tmp_path: Path
) -> None:
    run(["resisc45"], tmp_path / "archives")
    server.asked.clear()
    assert run(["resisc45", "resisc45"], tmp_path / "archives")[0] and server.asked == []
    run(["resisc45"], tmp_path / "archives", extras=True)
    assert [path for _, path, _ in server.asked] == ["/train.txt"]
    assert (tmp_path / "archives/resisc45/resisc45-train.txt").is_file()


def test_a_set_for_a_person_prints_its_steps_until_it_is_there(known: dict[str, Entry], tmp_path: Path) -> None:
    root = tmp_path / "archives"
    fine, lines = run(["aid"], root)
    assert fine and lines == [
        ("aid", "by hand", "https://example.org"),
        ("aid", "step", "get it"),
        ("aid", "step", f"unpack it into {root}/aid/AID"),
    ]
    make_sources.aid(root / "aid")
    assert run(["aid"], root) == (True, [("aid", "complete", "11 of 10 images, 11 samples")])


def test_too_few_images_and_another_set_are_told(known: dict[str, Entry], tmp_path: Path) -> None:
    root = tmp_path / "archives"
    make_sources.aid(root / "aid")
    for n in (1, 2):
        (root / f"aid/AID_dataset/AID/Airport/airport_{n}.jpg").unlink()
    fine, lines = run(["aid"], root)
    assert not fine and lines[-1] == ("aid", "incomplete", "9 of 10 images, 9 samples")
    make_sources.rsvqa_lr(tmp_path / "others/aid")
    fine, lines = run(["aid"], tmp_path / "others")
    assert fine and lines[-1][:2] == ("aid", "not found") and "looked for" in lines[-1][2]


def test_one_failure_does_not_stop_the_others(known: dict[str, Entry], server: FileServer, tmp_path: Path) -> None:
    del server.files["/resisc45.zip"]
    fine, lines = run(["resisc45", "rsvqa_lr"], tmp_path)
    assert not fine
    assert [line[:2] for line in lines[:2]] == [("resisc45", "failed"), ("rsvqa_lr", "fetched")]
    assert "404" in lines[0][2]


def test_a_record_without_the_file_is_a_failure(known: dict[str, Entry], server: FileServer, tmp_path: Path) -> None:
    server.files["/records/1"] = b'{"id": 1, "files": []}'
    fine, lines = run(["rsvqa_lr"], tmp_path)
    assert not fine and lines[0][:2] == ("rsvqa_lr", "failed") and "the record cannot be read" in lines[0][2]


def test_all_that_is_known_can_be_printed(tmp_path: Path) -> None:
    lines = [line for source in catalogue() for line in command.about(source, tmp_path / source)]
    assert ("resisc45", "licence", "unknown") in lines
    assert any(line[:2] == ("fmow", "step") and f"{tmp_path}/fmow/fMoW-rgb/train" in line[2] for line in lines)
    ways = [line for line in lines if line[1] in ("http", "zenodo", "hub", "by hand")]
    assert all(line[4].startswith("seen 2026") for line in ways)
    assert [line[0] for line in lines if line[1] == "page"] == list(catalogue())


def test_an_unknown_set_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing is known about where to get 'coco'"):
        command.download(["coco"], tmp_path, on_line=print)


def test_every_named_set_has_an_entry() -> None:
    assert set(catalogue()) == {name for name, source in SOURCES.items() if not source.generic} - {
        name for name in SOURCES if name.startswith("toy")
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "http", "files": [{"name": "../a", "url": "https://e.org/a"}]},
        {"kind": "http", "files": [{"name": "/etc/a", "url": "https://e.org/a"}]},
        {"kind": "http", "files": [{"name": ".bashrc", "url": "https://e.org/a"}]},
        {"kind": "http", "files": [{"name": "a", "url": "file:///etc/passwd"}]},
        {"kind": "http", "files": [{"name": "a"}]},
        {"kind": "zenodo", "files": [{"name": "a"}]},
        {"kind": "hub"},
        {"kind": "manual"},
        {"kind": "torrent", "steps": ["x"]},
    ],
)
def test_the_catalogue_takes_no_hostile_or_half_entry(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Way.model_validate({"by": "x", "seen": "2026-11-30", "where": "y"} | wrong)

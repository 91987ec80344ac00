"""Files over HTTP: resumed, verified, refused, on a server that misbehaves."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from file_server import FileServer

from geozero.common.errors import InputError
from geozero.curation.download import http
from geozero.sources.catalogue import RemoteFile

DATA = bytes(range(256)) * 4096  # 1 MiB
MD5 = "md5:" + hashlib.md5(DATA).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer({"/a.zip": DATA}) as running:
        yield running


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PAUSE", 0.0)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.setattr(http, "BLOCK", 1000)


def fetch(server: FileServer, into: Path, name: str = "a.zip", **known: Any) -> str:
    file = RemoteFile(name=name, url=f"{server.url}/{name}", **known)
    return http.fetch_file(file, into, lambda arrived, announced: None, threading.Event())


def ranges(server: FileServer) -> list[str | None]:
    return [asked for method, _, asked in server.asked if method == "GET"]


def left(into: Path) -> list[str]:
    return sorted(path.name for path in into.iterdir())


def test_a_file_arrives_once_and_is_verified(server: FileServer, tmp_path: Path) -> None:
    counted: list[tuple[int, int]] = []
    file = RemoteFile(name="deep/a.zip", url=f"{server.url}/a.zip", hash=MD5)
    for _ in range(2):
        assert http.fetch_file(file, tmp_path, lambda *n: counted.append(n), threading.Event()) == "md5"
    assert (tmp_path / "deep/a.zip").read_bytes() == DATA and left(tmp_path / "deep") == ["a.zip"]
    assert len(server.asked) == 1
    assert sum(n for n, _ in counted) == sum(n for _, n in counted) == len(DATA)


@pytest.mark.parametrize("validator", ["etag", "date"])
@pytest.mark.parametrize("known", [{}, {"hash": MD5}, {"bytes": len(DATA)}])
def test_a_connection_that_is_cut_again_and_again_is_resumed(
    server: FileServer, tmp_path: Path, validator: str, known: dict[str, Any]
) -> None:
    server.validator, server.cuts = validator, [100_000, 200_000, 0, 5, 70_000, 9, 300_000]
    fetch(server, tmp_path, **known)
    assert (tmp_path / "a.zip").read_bytes() == DATA
    asked = ranges(server)
    assert asked[:3] == [None, "bytes=100000-", "bytes=300000-"] and len(asked) == 8


def test_another_process_goes_on_where_the_first_was_killed(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [400_000] + [0] * 20
    with pytest.raises(InputError, match=r"the connection failed .* \(run the command again"):
        fetch(server, tmp_path, hash=MD5)
    assert not (tmp_path / "a.zip").exists() and (tmp_path / ".a.zip.part").stat().st_size == 400_000
    server.cuts, server.asked = [], []
    fetch(server, tmp_path, hash=MD5)
    assert ranges(server) == ["bytes=400000-"] and left(tmp_path) == ["a.zip"]
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_what_arrived_whole_before_a_kill_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / ".a.zip.part").write_bytes(DATA)
    fetch(server, tmp_path, hash=MD5)
    assert ranges(server) == [f"bytes={len(DATA)}-"] and (tmp_path / "a.zip").read_bytes() == DATA


def test_a_part_that_is_longer_than_the_file_is_dropped(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / ".a.zip.part").write_bytes(DATA + b"more")
    fetch(server, tmp_path, hash=MD5)
    assert (tmp_path / "a.zip").read_bytes() == DATA


@pytest.mark.parametrize("known", [{}, {"hash": MD5}])
def test_a_file_that_has_changed_meanwhile_is_fetched_anew(
    server: FileServer, tmp_path: Path, known: dict[str, Any]
) -> None:
    (tmp_path / ".a.zip.part").write_bytes(b"x" * 1000)
    (tmp_path / ".a.zip.part.tag").write_text('"of an older file"')
    fetch(server, tmp_path, **known)
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_without_validator_and_checksum_nothing_is_pieced_together(server: FileServer, tmp_path: Path) -> None:
    server.validator, server.cuts = "none", [1000]
    fetch(server, tmp_path)
    assert ranges(server) == [None, None] and (tmp_path / "a.zip").read_bytes() == DATA


def test_a_server_without_ranges_sends_all_of_it_again(server: FileServer, tmp_path: Path) -> None:
    server.ranges, server.cuts = False, [1000, 2000]
    fetch(server, tmp_path, hash=MD5)
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_a_damaged_part_is_noticed_by_the_checksum_and_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / ".a.zip.part").write_bytes(b"\xff" * 1000)
    assert fetch(server, tmp_path, hash=MD5) == "md5"
    assert ranges(server) == ["bytes=1000-", None] and (tmp_path / "a.zip").read_bytes() == DATA


def test_a_wrong_checksum_leaves_no_file(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not have the published checksum md5:0000"):
        fetch(server, tmp_path, hash="md5:" + "0" * 32)
    assert left(tmp_path) == [] and len(server.asked) == 2


def test_a_wrong_size_leaves_no_file(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"has {len(DATA)} bytes, not the published 7"):
        fetch(server, tmp_path, bytes=7)
    assert left(tmp_path) == []


@pytest.mark.parametrize("known", [{"hash": MD5}, {"bytes": len(DATA)}])
def test_a_wrong_file_that_lies_there_is_replaced(server: FileServer, tmp_path: Path, known: dict[str, Any]) -> None:
    (tmp_path / "a.zip").write_bytes(b"half of it")
    fetch(server, tmp_path, **known)
    assert (tmp_path / "a.zip").read_bytes() == DATA


def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.errors = [503, 429, 500]
    assert fetch(server, tmp_path, hash=MD5) == "md5"


def test_what_is_gone_says_so(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be fetched: 404 .* in http://127\.0\.0\.1:\d+/b\.zip"):
        fetch(server, tmp_path, "b.zip")


def test_a_server_that_is_not_there_says_so(tmp_path: Path) -> None:
    with FileServer() as gone:
        pass
    with pytest.raises(InputError, match="the connection failed"):
        fetch(gone, tmp_path)


def test_a_login_page_is_no_archive(server: FileServer, tmp_path: Path) -> None:
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(InputError, match="a web page instead of the file"):
        fetch(server, tmp_path)
    assert not (tmp_path / "a.zip").exists()


def test_too_little_room_is_said_before_anything_is_written(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2, 1, 1000))
    with pytest.raises(InputError, match=r"no room: 0\.0 GB to come"):
        fetch(server, tmp_path, hash=MD5)
    assert (tmp_path / ".a.zip.part").stat().st_size == 0


def test_a_disk_that_fills_up_keeps_what_has_arrived(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.open

    class Full:
        def __init__(self, file: Any) -> None:
            self._file, self._written = file, 0

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None:
            self._file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def write(self, block: bytes) -> int:
            if self._written >= 131_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            self._written += len(block)
            return int(self._file.write(block))

    def full(path: Path, *args: Any, **settings: Any) -> Any:
        file = real(path, *args, **settings)
        return Full(file) if path.name.endswith(".part") else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(
            InputError, match=r"no space left on the disk in .*a\.zip .*make room.*run the command again"
        ):
            fetch(server, tmp_path, hash=MD5)
    assert (tmp_path / ".a.zip.part").stat().st_size == 131_000
    fetch(server, tmp_path, hash=MD5)
    assert ranges(server)[-1] == f"bytes={131_000}-" and (tmp_path / "a.zip").read_bytes() == DATA


def test_two_processes_do_not_write_one_file(server: FileServer, tmp_path: Path) -> None:
    with (tmp_path / ".a.zip.part").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is fetching this file"):
            fetch(server, tmp_path)


def test_a_stop_keeps_what_has_arrived(server: FileServer, tmp_path: Path) -> None:
    stop = threading.Event()
    file = RemoteFile(name="a.zip", url=f"{server.url}/a.zip", hash=MD5)
    with pytest.raises(InputError, match="stopped"):
        http.fetch_file(file, tmp_path, lambda arrived, announced: stop.set() if arrived else None, stop)
    assert 0 < (tmp_path / ".a.zip.part").stat().st_size < len(DATA)


def test_a_file_in_place_of_the_directory_is_one_line(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file stands where a directory is expected"):
        fetch(server, tmp_path / "file")

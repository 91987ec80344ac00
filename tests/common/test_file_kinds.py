"""What a file is that holds something else than its name promises."""

from __future__ import annotations

import pytest

from geozero.common.file_kinds import is_part, kind_of, kind_of_name


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:85\n", "a Git LFS pointer, not the file itself"),
        (b"\xef\xbb\xbf\r\n <!DOCTYPE html>", "an HTML page, not the file itself"),
        (b"<html><title>404", "an HTML page, not the file itself"),
        (b"Rar!\x1a\x07\x01\x00", "a RAR archive"),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    ],
)
def test_first_bytes_tell(head: bytes, kind: str) -> None:
    found = kind_of(head, "set.zip")
    assert found is not None and found[0] == kind and found[1]


@pytest.mark.parametrize("head", [b"", b"PK\x03\x04", b"{}", b"<annotation>", b"\x89PNG", b"version 2"])
def test_other_files_have_no_kind(head: bytes) -> None:
    assert kind_of(head, "set.zip") is None


PARTS = "a.z01 a.Z12 a.zip.001 a.7z.002 a.part1.rar a.part03.rar a.r00 a.tar.gz.aa a.zip.ab a.tar.001 a.rar.001"
WHOLE = "a.zip a.tar.gz a.tgz a.tar a.7z a.rar a.001 a.jpg scene.2019 a.tar.xz a.tar.bz2 a_part1.zip"


@pytest.mark.parametrize("name", PARTS.split())
def test_parts_of_archives(name: str) -> None:
    assert is_part(name)
    found = kind_of_name(name)
    assert found is not None and found[0] == "part of a split archive" and "all parts" in found[1]


@pytest.mark.parametrize("name", WHOLE.split())
def test_whole_files(name: str) -> None:
    assert not is_part(name)


@pytest.mark.parametrize("name", ["a.zip.part", "a.zip.crdownload", "a.tar.aria2", "b.incomplete"])
def test_unfinished_downloads(name: str) -> None:
    assert kind_of_name(name) is not None and kind_of_name(name)[0] == "an unfinished download"  # type: ignore[index]

"""Files that are not what their names say, known by their first bytes or by the name, and what to do with them."""

from __future__ import annotations

import re
import shlex

HEAD_BYTES = 512  # as many of a file's first bytes as `kind_of` looks at

_RAR, _SEVEN_ZIP = b"Rar!", b"7z\xbc\xaf"
_PART = re.compile(
    r"\.(?:z\d\d|(?:zip|7z|rar|tar|t?gz)\.\d{3}|r\d\d|part\d+\.rar|part\d+|(?:zip|tar|t?gz|bz2|xz)[._-](?:part)?a[a-z])$"
)
_UNFINISHED = (".part", ".crdownload", ".aria2", ".incomplete", ".download", ".partial", ".!ut")
_PACKED = {".rar": "a RAR archive", ".7z": "a 7z archive", ".zst": "a Zstandard archive", ".lz4": "an LZ4 archive"}
SPLIT = "part of a split archive"


def kind_of(head: bytes, name: str = "") -> tuple[str, str] | None:
    """What a file is that holds something else than its name promises, and what to do; None for any other file.

    Args:
        head: its first `HEAD_BYTES` bytes.
        name: its name, for what only the name tells.
    """
    begin = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if begin.startswith(b"version https://git-lfs"):
        return (
            "a Git LFS pointer, not the file itself",
            "run `git lfs pull` there, or download the file",
        )
    if begin.startswith((b"<!doctype html", b"<html", b"<head")):
        return (
            "an HTML page, not the file itself",
            "an error or login page was saved; download the file again",
        )
    if head.startswith((_RAR, _SEVEN_ZIP)) and not is_part(name):
        return "a RAR archive" if head.startswith(_RAR) else "a 7z archive", unpacking(name)
    return None if name.lower().endswith(tuple(_PACKED)) else kind_of_name(name)


def kind_of_name(name: str) -> tuple[str, str] | None:
    """As `kind_of`, by the name alone."""
    lower = name.lower()
    if lower.endswith(_UNFINISHED):
        return "an unfinished download", "wait until it is finished, or download it again"
    if is_part(lower):
        return SPLIT, joining(name)
    packed = next((kind for suffix, kind in _PACKED.items() if lower.endswith(suffix)), None)
    return (packed, unpacking(name)) if packed else None


def is_part(name: str) -> bool:
    """Whether a name is that of one part of an archive, such as `.z01`, `.part1.rar`, `.7z.001`, `.tar.gz.aa`."""
    return _PART.search(name.lower()) is not None


def joining(name: str) -> str:
    """What to do with a part of a split archive."""
    return f"put all parts into one directory and {unpacking(name)}"


def unpacking(name: str) -> str:
    """What to do with an archive that cannot be read in place."""
    quoted = shlex.quote(name)
    tools = {".rar": "unrar x", ".zst": "unzstd", ".lz4": "unlz4"}
    command = next((f"{tool} {quoted}" for suffix, tool in tools.items() if suffix in name.lower()), f"7z x {quoted}")
    return f"unpack it with `{command}` and give the directory"

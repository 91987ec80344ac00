"""Names of a tree's members: which are taken, how they are written, which are what operating systems leave behind."""

from __future__ import annotations

from collections.abc import Container

JUNK_DIRECTORIES = ("__MACOSX", ".git", ".ipynb_checkpoints")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".webp")
OTHER_IMAGE_SUFFIXES = (".gif", ".jp2", ".j2k", ".jxl", ".heic", ".heif", ".avif", ".ecw", ".svg")  # not read
_JUNK_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")


def is_accepted(raw: str, refused: str, members: Container[str], ignored: list[tuple[str, str]]) -> str | None:
    """The clean name under which a member is taken; None where it is not, and why in `ignored`."""
    name = clean_name(raw)
    reason = "unsafe_name" if name is None else refused or ("name_twice" if name in members else "")
    if reason:
        ignored.append((_shown(raw), reason))
        return None
    return name


def clean_name(raw: str) -> str | None:
    """A member's name as a relative POSIX path; None for an absolute one, one with `..`, or one that is no text."""
    name = raw.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or name.startswith("/") or parts[0][1:2] == ":" or "\0" in name:
        return None
    return "/".join(parts) if is_text(name) else None


def is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(name: str) -> str:
    return name.encode("utf-8", "replace").decode()[:200]


def is_junk(name: str) -> bool:
    """What operating systems leave behind; no data set's file."""
    parts = name.split("/")
    return parts[-1] in _JUNK_FILES or parts[-1].startswith("._") or any(p in JUNK_DIRECTORIES for p in parts[:-1])


def stem(path: str) -> str:
    """The file name of a member path without directories and suffix."""
    name = path.rsplit("/", 1)[-1]
    return name.rsplit(".", 1)[0] if "." in name[1:] else name


def image_stem(path: str) -> str:
    """The file name of an image without directories and an image's suffix: `tile.1` stays, `tile.1.jpg` becomes so."""
    name = path.rsplit("/", 1)[-1]
    return stem(name) if name.lower().endswith((*IMAGE_SUFFIXES, *OTHER_IMAGE_SUFFIXES)) else name


def alnum_key(name: str) -> str:
    """A name by its letters and digits alone, in lower case."""
    return "".join(c for c in name.lower() if c.isalnum())

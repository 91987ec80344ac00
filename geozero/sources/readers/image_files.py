"""Images that an annotation names: where they lie in a tree, and how large they are."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from geozero.common.errors import BadRecord
from geozero.corpus.images import size_of
from geozero.sources.base import IMAGE_SUFFIXES, stem
from geozero.sources.readers.tree import Tree


class ImageFiles:
    """An index of the images of a tree; a name from an annotation only ever finds a listed member."""

    def __init__(self, tree: Tree, under: str = "") -> None:
        self._tree = tree
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._folded: dict[str, list[str]] | None = None  # made where a name is not found as it is written
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._sizes: dict[str, tuple[int, int] | BadRecord] = {}
        for member in tree.names(under, IMAGE_SUFFIXES):
            self._by_name[member.rpartition("/")[2]].append(member)
            self._by_stem[stem(member)].append(member)

    def __len__(self) -> int:
        return sum(map(len, self._by_name.values()))

    def __contains__(self, member: object) -> bool:
        return isinstance(member, str) and member in self._by_name.get(member.rpartition("/")[2], ())

    def find(self, name: str, near: Sequence[str] = ()) -> str:
        """The member that an annotation means by `name`, which may have directories in front, or another suffix.

        Of several with that file name the one is meant whose directories agree with `name`, or in whose directory the
        others' directories lie. With `near`, only images below a directory whose name begins with one of these are
        looked at, by letters and digits alone.

        Raises:
            BadRecord: `image_missing`, or `image_ambiguous`.
        """
        if name in self._tree:
            return name
        path_parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        if not path_parts:
            raise BadRecord("image_missing", name[:80])
        found = (
            self._by_name.get(path_parts[-1]) or self._by_stem.get(stem(path_parts[-1])) or self._alike(path_parts[-1])
        )
        if near:
            beginnings = tuple(map(_letters, near))
            found = [member for member in found if _lies_near(member, beginnings)]
        if len(found) > 1:
            agreeing = [_agreement(member, path_parts) for member in found]
            found = [member for member, n in zip(found, agreeing, strict=True) if n == max(agreeing)]
            found = _above_all(found)
        if not found:
            raise BadRecord("image_missing", name[:80])
        if len(found) > 1:
            raise BadRecord("image_ambiguous", f"{name[:60]} could be {', '.join(found[:3])}")
        return found[0]

    def _alike(self, name: str) -> list[str]:
        """Members whose file name is `name` but for its letters' case and the way in which accents are written, which
        other file systems and archives change."""
        if self._folded is None:
            self._folded = defaultdict(list)
            for known, members in self._by_name.items():
                self._folded[_fold(known)] += members
        return self._folded.get(_fold(name), [])

    def size(self, member: str) -> tuple[int, int]:
        """Width and height of an image in pixels, from its header; each is read once.

        Raises:
            BadRecord: missing, or no image.
        """
        known = self._sizes.get(member)
        if known is None:
            try:
                known = size_of(self._tree.read(member))
            except BadRecord as bad:
                known = BadRecord(bad.reason.replace("file_", "image_"), bad.detail)
            self._sizes[member] = known
        if isinstance(known, BadRecord):
            raise BadRecord(known.reason, known.detail)
        return known


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _letters(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())


def _lies_near(member: str, beginnings: tuple[str, ...]) -> bool:
    return any(_letters(part).startswith(beginnings) for part in member.split("/")[:-1])


def _above_all(found: list[str]) -> list[str]:
    """The one in whose directory the others' directories lie; all, where there is none."""
    top = min(found, key=lambda member: member.count("/"))
    directory = top[: top.rfind("/") + 1]
    others = [member for member in found if member.count("/") == top.count("/")]
    return [top] if len(others) == 1 and all(member.startswith(directory) for member in found) else found


def _agreement(member: str, path_parts: list[str]) -> int:
    """How many of the directories in front of the file name agree, counted from the file name on."""
    agreeing = 0
    for have, want in zip(reversed(member.split("/")[:-1]), reversed(path_parts[:-1]), strict=False):
        if have != want:
            break
        agreeing += 1
    return agreeing

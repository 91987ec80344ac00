"""What the adapters for anybody's own data share: names of splits, the one annotation file, keys of images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.sample import Split
from geozero.sources.base import Ratio
from geozero.sources.readers.annotations import text_of
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.rows import IMAGE_COLUMNS, are_one_table, row_files
from geozero.sources.readers.splits import split_named
from geozero.sources.readers.tables import check_whole
from geozero.sources.readers.tree import Tree

__all__ = ["RATIO", "ImageKeys", "image_of", "make_image_key", "split_named", "the_files"]

RATIO = Ratio(train=0.8, val=0.1)  # [ours]
TILES = "tiles.manifest"  # what `geozero tile` writes beside the tiles: whose they are
MAX_MANIFEST = 256 << 20  # bytes


def the_files(tree: Tree, suffixes: Sequence[str], chosen: str, what: str) -> list[str]:
    """The annotation file: the chosen one, else the only one with such a suffix in the top directory or one below;
    several where they are the shards or splits of one table.

    Raises:
        InputError: it is not there, or there are several to choose from.
    """
    if chosen:
        if chosen not in tree:
            raise InputError(f"no such file: {chosen}", tree.where(), "give its path below --root")
        return [chosen]
    found = row_files(tree, suffixes)
    while not found and tree.mount_archives():
        found = row_files(tree, suffixes)
    if not found:
        raise tree.absent(what, f"looked for {', '.join(suffixes)}")
    if len(found) > 1 and not are_one_table(found):
        raise InputError(
            f"several files could be the {what}: {', '.join(found[:4])}",
            tree.where(),
            f"choose one with --set file={found[0]}",
        )
    check_whole(tree, found)
    return found


def image_of(row: Any, column: str, images: ImageFiles, file: str) -> str:
    """The member that a row means: the image inside the table, or the one that the column names, from the table's own
    directory on.

    Args:
        column: of image names; other usual names are understood where there is no such column.

    Raises:
        BadRecord: no such column, or no such image.
    """
    if not isinstance(row, dict) or column in row:
        name = text_of(row, column)
    else:
        name = text_of(row, next((usual for usual in IMAGE_COLUMNS if usual in row), column))
    return images.find(name, place=file.rpartition("/")[0])


def make_image_key(source: str, member: str) -> str:
    """The key of an image: the source's name and the image's path without suffix."""
    directory, slash, name = member.rpartition("/")
    return f"{source}/{directory}{slash}{name.rsplit('.', 1)[0] if '.' in name[1:] else name}"


class ImageKeys:
    """The keys of a data set's images. Tiles of one scene share the key of the scene, wherever they were moved: they
    overlap, so that no two of them may be in different splits.

    Raises:
        InputError: the manifest of the tiles is damaged.
    """

    def __init__(self, source: str, tree: Tree) -> None:
        self._source = source
        self._scenes: dict[str, str] = {}  # file name of a tile → its scene
        self._splits: dict[str, Split] = {}
        self._annotated: dict[str, Split] = {}
        for file in tree.names(suffixes=(TILES,)):
            try:
                content = json.loads(tree.read(file, MAX_MANIFEST))
                self._scenes |= {str(tile).rpartition("/")[2]: str(scene) for tile, scene in content["tiles"].items()}
            except (BadRecord, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise InputError(f"malformed list of tiles: {error!r}"[:200], tree.where(file), "tile again") from None

    def __call__(self, member: str) -> str:
        scene = self._scenes.get(member.rpartition("/")[2])
        return make_image_key(self._source, member) if scene is None else f"{self._source}/{scene}"

    def check(self, member: str, split: Split) -> None:
        """Raise BadRecord where a tile of the same scene is in another split."""
        scene = self._scenes.get(member.rpartition("/")[2])
        if scene is not None and self._splits.setdefault(scene, split) != split:
            raise BadRecord("scene_in_two_splits", f"{scene}: {self._splits[scene]} and {split}")

    def is_annotated(self, member: str) -> bool:
        """Whether `annotate` was called with the image."""
        return member in self._annotated

    def annotate(self, member: str, split: Split, where: str) -> None:
        """Note that an annotation file shows the whole of an image.

        Raises:
            InputError: another file did, and put it into another split.
        """
        earlier = self._annotated.setdefault(member, split)
        if earlier != split:
            raise InputError(
                f"{member} is annotated here for {split}, and elsewhere for {earlier}",
                where,
                "an image belongs to one split; choose one of the annotation files with --set file=…",
            )

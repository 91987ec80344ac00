"""What the adapters for anybody's own data share: names of splits, the one annotation file, keys of images."""

from __future__ import annotations

from collections.abc import Sequence

from geozero.common.errors import InputError
from geozero.corpus.sample import Split
from geozero.sources.base import Ratio
from geozero.sources.readers.tree import Tree

RATIO = Ratio(train=0.8, val=0.1)  # [ours]
_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_named(text: str) -> Split | None:
    """The split that people mean by a word; None for any other word. Karpathy's `restval` is trained on."""
    return _SPLITS.get(text.strip().lower())


def the_file(tree: Tree, suffixes: Sequence[str], chosen: str, what: str) -> str:
    """The annotation file: the chosen one, else the only one with such a suffix in the top directory or one below.

    Raises:
        InputError: it is not there, or there are several to choose from.
    """
    if chosen:
        if chosen not in tree:
            raise InputError(f"no such file: {chosen}", tree.where(), "give its path below --root")
        return chosen
    found = files(tree, suffixes)
    if not found:
        raise InputError(f"no {what} found: looked for {', '.join(suffixes)}", tree.where(), "check --root")
    if len(found) > 1:
        raise InputError(
            f"several files could be the {what}: {', '.join(found[:4])}",
            tree.where(),
            f"choose one with --set file={found[0]}",
        )
    return found[0]


def files(tree: Tree, suffixes: Sequence[str]) -> list[str]:
    """The annotation files in the top directory or one below it."""
    return [name for name in tree.names(suffixes=suffixes) if name.count("/") <= 1]


def make_image_key(source: str, member: str) -> str:
    """The key of an image: the source's name and the image's path without suffix."""
    directory, slash, name = member.rpartition("/")
    return f"{source}/{directory}{slash}{name.rsplit('.', 1)[0] if '.' in name[1:] else name}"

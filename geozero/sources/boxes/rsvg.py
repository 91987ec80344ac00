"""RSVG: visual grounding, 7,933 expressions for objects in Google Earth images. Not DIOR-RSVG, not OPT-RSVG.

Layout: `rsvg/images/*.jpg` and `rsvg_{train,val,test}.pth`, in that directory or beside it. Each `.pth` is a torch
pickle, a list of tuples (image_name, [x1, y1, x2, y2] float pixels, expression, pos_tags, obj_count).
Splits, official: 5,505/1,201/1,227 expressions.
Licence: unknown to us; ask the authors before passing images on.
Citation: Sun et al., "Visual Grounding in Remote Sensing Images", ACM Multimedia 2022.
Traps: a pickle can run code when it is read: these are read with `weights_only=True`, and one that holds anything but
lists, numbers, texts, tensors and NumPy arrays of those is refused.
"""

from __future__ import annotations

import io
import pickle
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from geozero.common.errors import BadRecord, InputError
from geozero.common.file_kinds import HEAD_BYTES
from geozero.corpus.sample import SPLITS, Box
from geozero.sources.base import Published, Record, Rejected, Source, stem
from geozero.sources.readers.annotations import refuse_other_kind
from geozero.sources.readers.boxes import four_numbers
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.tree import Tree

LISTS = {split: f"rsvg_{split}.pth" for split in SPLITS}
IMAGES = "images"
MAX_LIST_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Rsvg(Source):
    tasks = ("grounding",)
    layout = "rsvg/images/<image>.jpg, rsvg_{train,val,test}.pth"
    any_of = tuple(LISTS.values())
    folders = ("rsvg",)
    published = Published(samples=7_933)

    name: str = "rsvg"
    title: str = "RSVG"
    size: str = "7,933 expressions"
    licence: str = "unknown"
    citation: str = "Sun et al., ACM Multimedia 2022"

    def find(self, tree: Tree) -> Tree:
        """The directory of the lists; an archive of the images that lies there is looked into.

        Raises:
            InputError: no lists, or no images with them.
        """
        home = super().find(tree)
        while not ImageFiles(home, (IMAGES,)).are_there():
            if not home.mount_archives((IMAGES, self.title)):
                raise home.absent(self.title, "no directory 'images' with the lists, nor 'rsvg/images' beside them")
        inside = IMAGES not in home.directories() and IMAGES in home.directories("rsvg")
        return home.at("rsvg") if inside else home

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        images = ImageFiles(tree, (IMAGES,))
        for split, file in LISTS.items():
            beside = f"../{file}"
            file = file if file in tree or beside not in tree else beside
            if file not in tree:
                yield Rejected(file, "split_missing", "no list of this split", split)
                continue
            for place, item in enumerate(read_list(tree, file)):
                key = f"{split}/{place}"
                try:
                    name, box, text = _fields(item)
                    yield Record(
                        task="grounding",
                        split=split,
                        key=key,
                        image=images.find(name),
                        image_key=f"{self.name}/{IMAGES}/{stem(name)}",
                        text=text,
                        box=box,
                    )
                except BadRecord as bad:
                    yield Rejected(key, bad.reason, bad.detail, split)


def read_list(tree: Tree, file: str) -> list[Any]:
    """The list that a torch pickle holds; nothing in it is executed.

    Raises:
        InputError: missing, too large, damaged, holding code or other objects, or no list.
    """
    import torch

    try:
        data = io.BytesIO(tree.read(file, MAX_LIST_BYTES))
        refuse_other_kind(data.getvalue()[:HEAD_BYTES], tree.where(file))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's age
            with torch.serialization.safe_globals(_numpy_constructors()):
                content = torch.load(data, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except BadRecord as bad:
        raise InputError(bad.reason.replace("_", " "), tree.where(file), "the data set needs this file") from None
    except pickle.UnpicklingError as error:
        raise InputError(
            f"refused, because it holds more than lists, numbers, texts and arrays{_named(error)}",
            tree.where(file),
            "a pickle can run code; take the authors' own file",
        ) from None
    except Exception as error:  # a damaged file fails anywhere in the unpickler, with whatever comes
        raise InputError(
            f"no torch file, or a damaged one: {type(error).__name__}: {first_line(error)}",
            tree.where(file),
            "download it again",
        ) from None
    content = content.tolist() if hasattr(content, "tolist") else content
    if not isinstance(content, list):
        raise InputError(f"holds {type(content).__name__}, expected a list", tree.where(file), "check --root")
    return content


def _numpy_constructors() -> list[Any]:
    """What NumPy pickles arrays, numbers and texts with, under the names of NumPy 1 and 2; nothing runs code."""
    import numpy as np
    from numpy._core import multiarray

    constructors = [
        (getattr(multiarray, name), f"numpy.{core}.multiarray.{name}")
        for name in ("_reconstruct", "scalar")
        for core in ("_core", "core")
    ]
    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQefdSUO"}
    return [*constructors, np.ndarray, np.dtype, *kinds]


def _named(error: Exception) -> str:
    """What the unpickler names as the culprit, if it names one."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f": {found[1]}" if found else ""


def first_line(error: Exception) -> str:
    """The beginning of an error's message, on one line."""
    return str(error).strip().partition("\n")[0][:120]


def _fields(item: Any) -> tuple[str, Box, str]:
    """Image, box and expression of an entry."""
    if not isinstance(item, tuple | list) or len(item) < 3:
        raise BadRecord("record_malformed", f"{type(item).__name__}, expected (image, box, expression, …)")
    name, box, text = item[:3]
    if not isinstance(name, str) or not isinstance(text, str):
        raise BadRecord("record_malformed", f"image {type(name).__name__}, expression {type(text).__name__}")
    values = box.tolist() if hasattr(box, "tolist") else box  # a tensor or an array
    if isinstance(values, tuple | list):
        values = [value.item() if hasattr(value, "item") else value for value in values]
    numbers = four_numbers(values)
    if not text.strip():
        raise BadRecord("expression_missing")
    return name, numbers, " ".join(text.split())

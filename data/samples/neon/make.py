"""Cut the NEON shard (tiles/ and annotations.json) from the two aerial images inside the deepforest 2.1.0 wheel.

    pip download --no-deps deepforest==2.1.0
    .venv/bin/python data/samples/neon/make.py --wheel deepforest-2.1.0-py3-none-any.whl

The wheel is read, not installed; its four members are checked by SHA-256. The same wheel and the pinned Pillow give
the same bytes. README.md beside this file states the layout and the rules, NOTICE the origin and the licences.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from defusedxml import ElementTree
from PIL import Image

from geozero.common.errors import InputError

Rectangle = tuple[int, int, int, int]

TILE = 256
QUALITY = 85  # about 30 kB a tile; above it the shard outgrows its 4 MB
MIN_SHARE = 0.5  # a tree belongs to a tile that shows at least half of its box …
MIN_SIDE = 8  # … and at least this many pixels of either side
MEMBERS = "deepforest/data/"


@dataclass(frozen=True)
class AerialImage:
    """One large image of the wheel.

    `columns` holds the left edges of the tile columns of each split, `rows` the upper edges of all rows, `unlabelled`
    the areas with a tree that has no box, found by eye and not exhaustive (all in pixels of the large image).
    """

    name: str
    stem: str
    png_sha256: str
    xml_sha256: str
    columns: dict[str, tuple[int, ...]]
    rows: tuple[int, ...]
    unlabelled: tuple[Rectangle, ...]


# The first image is train. The second is cut by a strip of 128 px without tiles (x 865 to 993; the widest tree box has
# 93 px) into a test part and a val part. Its first 97 px, where many trees have no box, stay unused, like the
# remainders at the right and lower edges.
IMAGES = (
    AerialImage(
        "yell_528000_4978000",
        "2019_YELL_2_528000_4978000_image_crop2",
        "a9bdb0f4447fdd899d22f567e0e20ba8320c5413b2ad0cd0ac8d9f3b6e0f9767",
        "bd431af6a5086d721eb731b22f5ea28cd8a8eab06883efc1c665391acbc68e11",
        {"train": tuple(range(0, 8 * TILE, TILE))},
        tuple(range(0, 9 * TILE, TILE)),
        (
            (700, 5, 745, 45),
            (1030, 15, 1100, 90),
            (1689, 0, 1721, 12),
            (1021, 1023, 1068, 1048),
            (1121, 1044, 1164, 1137),
            (1057, 1169, 1107, 1208),
            (1668, 1075, 1730, 1125),
            (1764, 1023, 1821, 1059),
            (1793, 1890, 1864, 1926),
            (1857, 1933, 1943, 1968),
            (628, 1940, 686, 1997),
            (603, 2168, 650, 2218),
        ),
    ),
    AerialImage(
        "yell_541000_4977000",
        "2019_YELL_2_541000_4977000_image_crop",
        "178e58a23cc2642226a364a30f71bd9258ddc1b012c826f12250914a90c7a131",
        "cefe4b96888bacbf8af1674f000082e549aa707aa6590d545effb23e43f26631",
        {"test": (97, 353, 609), "val": (993,)},
        tuple(range(0, 4 * TILE, TILE)),
        (
            (75, 25, 145, 95),
            (175, 385, 208, 415),
            (160, 625, 202, 660),
            (205, 570, 245, 612),
            (280, 960, 362, 1022),
            (462, 125, 502, 162),
            (580, 95, 602, 117),
            (612, 663, 702, 697),
            (690, 612, 722, 645),
            (800, 410, 846, 452),
            (845, 0, 912, 32),
            (853, 643, 887, 672),
            (1115, 0, 1155, 35),
            (1145, 0, 1205, 75),
            (1200, 0, 1249, 42),
            (1012, 870, 1040, 905),
            (1060, 798, 1088, 828),
        ),
    ),
)


def clip(box: Rectangle, left: int, top: int) -> Rectangle | None:
    """The part of a box that a tile shows, in the tile's pixels; None where it shows nothing."""
    x1, y1, x2, y2 = box
    clipped = (max(x1 - left, 0), max(y1 - top, 0), min(x2 - left, TILE), min(y2 - top, TILE))
    return clipped if clipped[0] < clipped[2] and clipped[1] < clipped[3] else None


def split_boxes(boxes: Iterable[Rectangle], left: int, top: int) -> tuple[list[Rectangle], list[Rectangle]]:
    """The boxes of one tile in its own pixels: those that count as trees there, and the slivers that do not.

    Args:
        boxes: xyxy pixels of the large image.
        left: the tile's left edge in that image.
        top: its upper edge.
    """
    kept, slivers = [], []
    for box in boxes:
        part = clip(box, left, top)
        if part is None:
            continue
        is_tree = area(part) >= MIN_SHARE * area(box) and min(part[2] - part[0], part[3] - part[1]) >= MIN_SIDE
        (kept if is_tree else slivers).append(part)
    return sorted(kept), sorted(slivers)


def area(box: Rectangle) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def read_boxes(xml: bytes) -> list[Rectangle]:
    """All object boxes of a Pascal VOC file, as they stand (xmin, ymin, xmax, ymax)."""
    boxes = []
    for node in ElementTree.fromstring(xml).iter("bndbox"):
        x1, y1, x2, y2 = (int(node.findtext(tag)) for tag in ("xmin", "ymin", "xmax", "ymax"))
        boxes.append((x1, y1, x2, y2))
    return boxes


def tiles(image: AerialImage) -> Iterator[tuple[str, str, int, int]]:
    """Name, split, left and upper edge of each tile; r and c count the rows and columns that are cut, from 0."""
    splits = {left: split for split, lefts in image.columns.items() for left in lefts}
    for row, top in enumerate(image.rows):
        for column, left in enumerate(sorted(splits)):
            yield f"r{row:02d}c{column:02d}", splits[left], left, top


def member(wheel: zipfile.ZipFile, name: str, sha256: str) -> bytes:
    """The bytes of one member, checked.

    Raises:
        InputError: the wheel has no such member, or another one.
    """
    try:
        data = wheel.read(MEMBERS + name)
    except KeyError:
        raise InputError(f"no {MEMBERS}{name}", str(wheel.filename), "take deepforest 2.1.0") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise InputError(f"{name} is not the file known here", str(wheel.filename), "take deepforest 2.1.0")
    return data


def cut(wheel_path: Path, out: Path) -> dict[str, Any]:
    """Write `out`/tiles/*.jpg, then `out`/annotations.json, and return what the latter holds.

    Raises:
        InputError: the wheel cannot be read or is another one.
    """
    annotations: dict[str, Any] = {
        "made_from": "deepforest 2.1.0 (PyPI wheel)",
        "rule": {"tile": TILE, "min_share": MIN_SHARE, "min_side": MIN_SIDE},
        "images": {},
        "tiles": [],
    }
    (out / "tiles").mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(wheel_path) as wheel:
            for image in IMAGES:
                pixels = Image.open(io.BytesIO(member(wheel, f"{image.stem}.png", image.png_sha256))).convert("RGB")
                boxes = read_boxes(member(wheel, f"{image.stem}.xml", image.xml_sha256))
                annotations["images"][image.name] = {
                    "file": f"{image.stem}.png",
                    "width": pixels.width,
                    "height": pixels.height,
                    "n_boxes": len(boxes),
                }
                for name, split, left, top in tiles(image):
                    file = f"tiles/{image.name}_{name}.jpg"
                    save(pixels.crop((left, top, left + TILE, top + TILE)), out / file)
                    kept, slivers = split_boxes(boxes, left, top)
                    unlabelled = [part for box in image.unlabelled if (part := clip(box, left, top))]
                    annotations["tiles"].append(
                        {"file": file, "image": image.name, "name": name, "split": split, "x": left, "y": top}
                        | {"boxes": kept, "slivers": slivers, "unlabelled": unlabelled}
                    )
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"cannot read the wheel: {error}", str(wheel_path), "give the deepforest 2.1.0 wheel"
        ) from None
    known = {tile["file"] for tile in annotations["tiles"]}
    for path in (out / "tiles").glob("*.jpg"):
        if f"tiles/{path.name}" not in known:
            path.unlink()
    write_annotations(out / "annotations.json", annotations)
    return annotations


def write_annotations(path: Path, annotations: dict[str, Any]) -> None:
    """Write JSON with one line a tile, so that a changed tile is one changed line."""
    head = json.dumps({key: value for key, value in annotations.items() if key != "tiles"}, indent=1)
    lines = ",\n".join(json.dumps(tile) for tile in annotations["tiles"])
    temporary = path.with_suffix(".part")
    temporary.write_text(f'{head[:-2]},\n "tiles": [\n{lines}\n ]\n}}\n')
    os.replace(temporary, path)


def save(tile: Image.Image, path: Path) -> None:
    """Write one JPEG without metadata, under a temporary name first."""
    temporary = path.with_suffix(".part")
    tile.info = {}
    tile.save(temporary, "JPEG", quality=QUALITY, optimize=True)
    os.replace(temporary, path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheel", type=Path, required=True, help="deepforest-2.1.0-py3-none-any.whl")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="default: the directory of this file")
    options = parser.parse_args(arguments)
    try:
        annotations = cut(options.wheel, options.out)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    n_trees = sum(len(tile["boxes"]) for tile in annotations["tiles"])
    print(f"{len(annotations['tiles'])} tiles, {n_trees} trees -> {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

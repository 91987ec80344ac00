"""Cut large scenes into 8-bit RGB tiles with their COCO annotations, ready for `geozero ingest coco`."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from geozero.common.errors import BadRecord, InputError
from geozero.common.own_files import replacing_own
from geozero.corpus.raster import Stretch, choose_bands, to_rgb
from geozero.corpus.sample import Box
from geozero.curation.tiling.scenes import Scene, Tile, open_scene, tiles
from geozero.sources.custom.common import TILES

SIDE = 512  # pixels [ours]
OVERLAP = 4  # neighbours share one in so many parts of the side [ours]
LEAST_PART = 0.7  # of an object's area; an object with less counts as vague, like COCO's crowds [ours]
ANNOTATIONS = "annotations.json"
KEY_DIGITS = 8  # of the hash of a scene's bytes in its key: two scenes of one name are two


@dataclass(frozen=True, slots=True)
class Tiled:
    """Numbers of tiles written, objects kept, and objects cut so much that they are only marked as vague."""

    tiles: int
    objects: int
    vague: int


def tile_scenes(
    scenes: Sequence[Path],
    out: Path,
    annotations: Path | None = None,
    *,
    side: int = SIDE,
    overlap: int | None = None,
    bands: tuple[int, ...] = (),
    stretch: Stretch | None = None,
    least_part: float = LEAST_PART,
) -> Tiled:
    """Write `<scene>/<scene>_<x>_<y>.png`, `tiles.manifest` and, with annotations, `annotations.json`. An older result
    at `out` is replaced where it is as it was written and nothing else lies there.

    The manifest says which scene a tile is of: tiles overlap, and the adapters for users' own data keep those of one
    scene in one split.

    A scene's stretch is computed from a view of the whole, so that its tiles agree. Annotations refer to an image by
    its file name. An object belongs to each tile that holds at least `least_part` of its area, its box cut at the edge;
    where less of it is visible, it is marked `iscrowd`, so that no question is made about its category there.

    Args:
        annotations: COCO's detection JSON of the scenes.
        overlap: pixels that neighbouring tiles share at least; by default a quarter of the side.
        bands: those used as red, green and blue, from 1; by default the first three.

    Raises:
        InputError: a scene is missing or unreadable, two have one name, malformed annotations, wrong parameters.
    """
    stretch, overlap = stretch or Stretch(), side // OVERLAP if overlap is None else overlap
    if not 0 < least_part <= 1:
        raise InputError(f"least part {least_part}", hint="above 0, at most 1")
    twice = [path for path in scenes if sum(other.stem == path.stem for other in scenes) > 1]
    if not scenes or twice:
        raise InputError("two scenes of one name" if twice else "no scenes", str(twice[0]) if twice else "")
    given = [path for path in (*scenes, *([annotations] if annotations else [])) if _lies_in(path, out)]
    if given:
        raise InputError(f"what is given lies in the output: {given[0]}", str(out), "choose another --out")
    objects = _objects(annotations) if annotations else None
    if objects is not None and not {path.name for path in scenes} & objects.boxes.keys():
        raise InputError("no scene of these annotations was given", str(annotations), "names must be the same")
    images: list[dict[str, Any]] = []
    scene_of: dict[str, str] = {}
    placed: list[dict[str, Any]] = []
    with replacing_own(out) as place:
        for path in scenes:
            with open_scene(path) as scene:
                key = f"{path.stem}-{_digest(path)[:KEY_DIGITS]}"
                if objects is not None:
                    objects.check_size(path.name, scene, annotations)
                for tile, name in _written(scene, path, place, side, overlap, bands, stretch):
                    number = len(images)
                    images.append({"id": number, "file_name": name, "width": tile.width, "height": tile.height})
                    scene_of[name] = key
                    for category, box in objects.boxes.get(path.name, ()) if objects else ():
                        inside = tile.box_into(box)
                        if inside is not None:
                            cut_off = tile.part_of(box) < least_part
                            placed.append(_annotation(len(placed), number, category, inside, cut_off))
        if objects is not None:
            content = {"images": images, "annotations": placed, "categories": objects.categories}
            (place / ANNOTATIONS).write_text(json.dumps(content), encoding="utf-8")
        (place / TILES).write_text(json.dumps({"tiles": scene_of}, indent=1), encoding="utf-8")
    vague = sum(int(row["iscrowd"]) for row in placed)
    return Tiled(len(images), len(placed) - vague, vague)


def _written(
    scene: Scene, path: Path, place: Path, side: int, overlap: int, bands: tuple[int, ...], stretch: Stretch
) -> Iterator[tuple[Tile, str]]:
    chosen = choose_bands(scene.count, bands)
    try:
        limits = stretch.limits(scene.look(chosen))
    except BadRecord as bad:
        raise InputError(str(bad), str(path), "--stretch percentile or range") from None
    (place / path.stem).mkdir(parents=True)
    for tile in tiles(scene.width, scene.height, side, overlap):
        name = f"{path.stem}/{path.stem}_{tile.x}_{tile.y}.png"
        Image.fromarray(to_rgb(scene.read(chosen, tile), limits)).save(place / name)
        yield tile, name


@dataclass(frozen=True, slots=True)
class _Objects:
    boxes: dict[str, list[tuple[int, Box]]]  # file name of the scene → (category, box)
    categories: list[Any]
    sizes: dict[str, tuple[Any, Any]]  # file name of the scene → width and height that the annotations give

    def check_size(self, name: str, scene: Scene, annotations: Path | None) -> None:
        """Raise InputError where the boxes of a scene were drawn on an image of another size."""
        given = self.sizes.get(name, (None, None))
        if all(type(side) is int and side > 0 for side in given) and given != (scene.width, scene.height):
            raise InputError(
                f"boxes of {name} are those of {given[0]}x{given[1]} px, the scene has {scene.width}x{scene.height}",
                str(annotations),
                "give the scene on which they were drawn",
            )


def _objects(path: Path) -> _Objects:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {row["id"]: Path(row["file_name"]).name for row in content["images"]}
        sizes = {names[row["id"]]: (row.get("width"), row.get("height")) for row in content["images"]}
        boxes: dict[str, list[tuple[int, Box]]] = defaultdict(list)
        for row in content["annotations"]:
            x, y, width, height = map(float, row["bbox"])
            if width > 0 and height > 0:
                boxes[names[row["image_id"]]].append((row["category_id"], (x, y, x + width, y + height)))
        return _Objects(dict(boxes), list(content["categories"]), sizes)
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", str(path), "give COCO's detection JSON") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(f"malformed annotations: {error!r}"[:200], str(path), "give COCO's detection JSON") from None


def _annotation(number: int, image: int, category: int, box: Box, vague: bool) -> dict[str, Any]:
    x1, y1, x2, y2 = box
    size = [x1, y1, x2 - x1, y2 - y1]
    return {"id": number, "image_id": image, "category_id": category, "bbox": size, "iscrowd": int(vague)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _lies_in(path: Path, directory: Path) -> bool:
    return path.resolve().is_relative_to(directory.resolve())

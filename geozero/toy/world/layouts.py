"""Writes the toy world as data sets in the layouts in which the real ones are distributed.

Under one root: `AID/<Class>/<class>_<n>.jpg`; `RSVQA_LR/Images_LR/<id>.tif` with its JSON lists;
`RSICD/RSICD_images/<n>.jpg` with `dataset_rsicd.json`; `DIOR_RSVG/{JPEGImages,Annotations}` with its index lists;
`world.json`, written last. The real adapters read them under the names `toy_aid`, `toy_aid_hard`, …. On request also
the suite of `geozero.toy.world.suite`: `SUITE_VQA` in RSVQA-LR's layout, `SUITE_VG` in DIOR-RSVG's.

Seeds: no scene is used twice. `scene_seed` gives every data set, split and difficulty a block of its own; the
block "pretrain" is for the scenes that the tiny base model is pre-trained on, "samples" for images kept in git.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from PIL import Image

from geozero.common.errors import InputError
from geozero.toy.world import suite
from geozero.toy.world.language import captions, questions_about, referring
from geozero.toy.world.scene import DEFAULT_SIZE, SCENE_CLASSES, SIZE_RANGE, Scene, render, sample_scene

WORLD_VERSION = 2  # raise it when scenes, images or texts of the same seed change
SETS = ("aid", "rsvqa_lr", "rsicd", "dior_rsvg")
SUITE_SETS = ("suite_vqa", "suite_vg")
SPLITS = ("train", "val", "test")
MANIFEST = "world.json"

_BLOCKS = {  # place of a data set's seeds in a world; 6 and 7 are left to the scenes of pre-training
    **{name: place for place, name in enumerate((*SETS, "pretrain", "samples"))},
    **dict(zip(SUITE_SETS, (8, 9), strict=True)),
}
_BLOCK = 200_000  # seeds of one data set, split and difficulty
_BLOCKS_A_SET = 4  # train, val, test, and the hard world's test
_WORLD = 10_000_000  # seeds of one world; larger than all blocks together

JPEG_QUALITY = 92
DATE_ADDED = 1_558_602_098  # RSVQA-LR's items carry a Unix time; a fixed one keeps the files identical
MOST_REFERENCES = 2  # expressions per image in DIOR-RSVG, which has 2.2 on average
REPEATED_CAPTIONS = 0.35  # share of RSICD images whose five sentences are made up by repetition

Sizes = Mapping[str, Mapping[str, int]]  # scenes by data set and split; of the suite's sets questions of each type
_Asked = tuple[str, Scene, list[tuple[str, str, str]]]  # split, scene, (type, question, answer)
_Referred = tuple[str, Scene, list[tuple[int, str]]]  # split, scene, (index into its objects, expression)
OnProgress = Callable[[int, int], None]


def world_sizes(train: Mapping[str, int], val: int, test: int) -> dict[str, dict[str, int]]:
    """Sizes for `write_world`: training scenes by data set, validation and test scenes for each of them."""
    return {name: {"train": train[name], "val": val, "test": test} for name in SETS if name in train}


DEFAULT_SIZES = world_sizes({"aid": 700, "rsvqa_lr": 300, "rsicd": 300, "dior_rsvg": 300}, val=64, test=270)


def scene_seed(seed: int, name: str, split: str, index: int, hard: bool = False) -> int:
    """The seed of one scene. `name`: a data set, "pretrain" or "samples"; the hard world is all test.

    Raises:
        InputError: negative seed, unknown name or split, or more scenes than a block holds.
    """
    if seed < 0 or name not in _BLOCKS or split not in SPLITS or not 0 <= index < _BLOCK:
        raise InputError(
            f"no toy scene {name}/{split}/{index} in world {seed}",
            "the toy world",
            f"a seed from 0 on, one of {', '.join(_BLOCKS)}, and fewer than {_BLOCK} scenes per split",
        )
    block = _BLOCKS_A_SET - 1 if hard else SPLITS.index(split)
    return seed * _WORLD + (_BLOCKS[name] * _BLOCKS_A_SET + block) * _BLOCK + index


def write_world(
    root: Path,
    *,
    seed: int,
    sizes: Sizes = DEFAULT_SIZES,
    size: int = DEFAULT_SIZE,
    hard: bool = False,
    progress: OnProgress | None = None,
) -> None:
    """Writes the data sets under `root`, or returns at once if the same world is already complete.

    Args:
        root: made by this function; everything appears in it at once, by renaming a finished directory.
        seed: the world; worlds of different seeds share no scene.
        sizes: scenes by data set and split; of the suite's sets questions of each type. What is not named is not
            written. AID has no split files: its adapter splits what is there.
        size: side of an image in pixels.
        hard: small, crowded, noisy scenes, all of them in the test split; only the sizes of "test" count.
        progress: called with (scenes done, scenes in all).

    Raises:
        InputError: `root` holds something else, or a parameter is out of range.
    """
    plan = _plan(sizes, hard)
    parameters = {"version": WORLD_VERSION, "seed": seed, "size": size, "hard": hard, "scenes": plan}
    if not SIZE_RANGE[0] <= size <= SIZE_RANGE[1]:
        raise InputError(f"a toy world of {size} px", hint=f"choose {SIZE_RANGE[0]} to {SIZE_RANGE[1]} px")
    if _is_complete(root, parameters):
        return
    partial = root.with_name(f".{root.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a killed run
    partial.mkdir(parents=True)
    with ProcessPoolExecutor() as painters:  # images take most of the time
        writer = _Writer(partial, seed, size, hard, plan, painters)
        counts = {name: getattr(writer, name)() for name in plan}
        writer.wait(progress)
    (partial / MANIFEST).write_text(json.dumps({"parameters": parameters, "counts": counts}, indent=1) + "\n")
    if root.is_dir():
        root.rmdir()  # empty: _is_complete refuses anything else
    os.replace(partial, root)


def _plan(sizes: Sizes, hard: bool) -> dict[str, dict[str, int]]:
    known = (*SETS, *SUITE_SETS)
    for name, by_split in sizes.items():
        if name not in known or any(split not in SPLITS or n < 0 for split, n in by_split.items()):
            raise InputError(
                f"toy sizes {name}: {dict(by_split)}", hint=f"sets {', '.join(known)}; splits {', '.join(SPLITS)}"
            )
    splits = ("test",) if hard else SPLITS
    return {name: {split: sizes[name].get(split, 0) for split in splits} for name in known if name in sizes}


def _is_complete(root: Path, parameters: dict[str, Any]) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    hint = "give a directory of its own, or remove this one"
    try:
        found = json.loads((root / MANIFEST).read_text())
    except (OSError, ValueError):
        raise InputError("the directory holds something other than a toy world", str(root), hint) from None
    if not isinstance(found, dict) or found.get("parameters") != parameters:
        raise InputError("the directory holds a toy world with other parameters", str(root), hint)
    return True


class _Writer:
    """One world being written; one method per data set, each returning its counts."""

    def __init__(
        self,
        root: Path,
        seed: int,
        size: int,
        hard: bool,
        plan: dict[str, dict[str, int]],
        painters: Executor,
    ) -> None:
        self.root, self.seed, self.size, self.hard, self.plan = root, seed, size, hard, plan
        self._painters = painters
        self._images: list[Future[None]] = []

    def wait(self, progress: OnProgress | None) -> None:
        """Until all images are there."""
        for done, image in enumerate(as_completed(self._images), start=1):
            image.result()
            if progress:
                progress(done, len(self._images))

    def _scene(self, name: str, split: str, index: int, scene_class: str | None = None) -> Scene:
        seed = scene_seed(self.seed, name, split, index, self.hard)
        return sample_scene(seed, self.size, self.hard, scene_class)

    def _save(self, scene: Scene, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._images.append(self._painters.submit(_paint, scene, path))

    def _mixed(self, name: str) -> list[tuple[str, int]]:
        """(split, index) of all scenes of a data set in the shuffled order in which they get their numbers."""
        places = [(split, index) for split, count in self.plan[name].items() for index in range(count)]
        random.Random(f"{self.seed} {name} {self.hard}").shuffle(places)
        return places

    def _write_json(self, path: Path, data: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data))

    # --- one data set each ---------------------------------------------------------------------------------

    def aid(self) -> dict[str, int]:
        """Class folders, no split files, classes in turn."""
        names = list(SCENE_CLASSES)
        counts = dict.fromkeys(names, 0)
        for split, count in self.plan["aid"].items():
            for index in range(count):
                name = names[index % len(names)]
                counts[name] += 1
                path = self.root / "AID" / name / f"{name.lower()}_{counts[name]}.jpg"
                self._save(self._scene("aid", split, index, name), path)
        return counts

    def rsvqa_lr(self) -> dict[str, int]:
        """Five questions about each scene."""
        scenes = ((split, self._scene("rsvqa_lr", split, index)) for split, index in self._mixed("rsvqa_lr"))
        asked = ((split, scene, questions_about(scene, random.Random(scene.seed))) for split, scene in scenes)
        return self._rsvqa("RSVQA_LR", asked)

    def suite_vqa(self) -> dict[str, int]:
        """The suite's questions, in the layout of RSVQA-LR."""
        drawn = self._balanced("suite_vqa", suite.QUESTIONS)
        return self._rsvqa(
            "SUITE_VQA", ((split, scene, [(c.kind, c.text, c.answer) for c in own]) for split, scene, own in drawn)
        )

    def _balanced(self, name: str, types: Mapping[str, suite.Type]) -> list[tuple[str, Scene, list[suite.Candidate]]]:
        """Scenes with what the suite asks about them, of all splits, in a shuffled order."""
        found: list[tuple[str, Scene, list[suite.Candidate]]] = []
        for split, n in self.plan[name].items():
            rng = random.Random(f"{self.seed} {name} {split} {self.hard}")
            scenes = (self._scene(name, split, index) for index in range(_BLOCK))
            found += [(split, scene, own) for scene, own in suite.balanced(scenes, types, n, rng)]
        random.Random(f"{self.seed} {name} {self.hard}").shuffle(found)
        return found

    def _rsvqa(self, directory: str, asked: Iterable[_Asked]) -> dict[str, int]:
        """Images by id; per split and for all: images, questions and answers whose list index is their id.

        A split's lists keep an inactive placeholder where an id belongs to another split. The images' list has
        full length, the other two end after the split's last active item.
        """
        folder = self.root / directory
        lists: dict[str, list[dict[str, Any]]] = {"images": [], "questions": [], "answers": []}
        splits: dict[str, list[str]] = {kind: [] for kind in lists}
        for image_id, (split, scene, rows_of_image) in enumerate(asked):
            self._save(scene, folder / "Images_LR" / f"{image_id}.tif")
            common = {"date_added": DATE_ADDED, "people_id": 0, "active": True}
            first = len(lists["questions"])
            for number, (kind, question, answer) in enumerate(rows_of_image, start=first):
                link = {"img_id": image_id, "type": kind, "question": question, "answers_ids": [number]}
                lists["questions"].append({"id": number, **common, **link})
                lists["answers"].append({"id": number, **common, "question_id": number, "answer": answer})
                splits["questions"].append(split)
                splits["answers"].append(split)
            lists["images"].append(
                {
                    "id": image_id,
                    **common,
                    "original_name": f"scene_{scene.seed}.tif",
                    "sensor": "toy world",
                    "upperleft_map_x": 0.0,
                    "upperleft_map_y": 0.0,
                    "res_x": 1.0,
                    "res_y": 1.0,
                    "type": "LR",
                    "questions_ids": list(range(first, len(lists["questions"]))),
                }
            )
            splits["images"].append(split)
        for kind, rows in lists.items():
            self._write_json(folder / f"all_{kind}.json", {kind: rows})
            for split in SPLITS:
                part = [
                    row if own == split else {"id": row["id"], "active": False}
                    for row, own in zip(rows, splits[kind], strict=True)
                ]
                while kind != "images" and part and not part[-1]["active"]:
                    part.pop()
                self._write_json(folder / f"LR_split_{split}_{kind}.json", {kind: part})
        return {kind: len(rows) for kind, rows in lists.items()}

    def rsicd(self) -> dict[str, int]:
        """Images and one JSON list with five sentences each, some of them repeated."""
        folder = self.root / "RSICD"
        images: list[dict[str, Any]] = []
        for number, (split, index) in enumerate(self._mixed("rsicd")):
            scene = self._scene("rsicd", split, index)
            name = f"{number + 1:05d}.jpg"
            self._save(scene, folder / "RSICD_images" / name)
            rng = random.Random(scene.seed)
            sentences = captions(scene, rng)
            if rng.random() < REPEATED_CAPTIONS:
                kept = sentences[: rng.randint(1, 4)]
                sentences = kept + rng.choices(kept, k=len(sentences) - len(kept))
            ids = [5 * number + place for place in range(len(sentences))]
            rows = [
                {"tokens": _tokens(raw), "raw": raw, "imgid": number, "sentid": sentence_id}
                for sentence_id, raw in zip(ids, sentences, strict=True)
            ]
            images.append({"sentids": ids, "imgid": number, "sentences": rows, "split": split, "filename": name})
        self._write_json(folder / "dataset_rsicd.json", {"images": images, "dataset": "rsicd"})
        return {"images": len(images), "sentences": 5 * len(images)}

    def dior_rsvg(self) -> dict[str, int]:
        """Scenes with an object that can be referred to."""
        supply = {split: self._with_references(split) for split in self.plan["dior_rsvg"]}
        return self._rsvg("DIOR_RSVG", ((split, *next(supply[split])) for split, _ in self._mixed("dior_rsvg")))

    def suite_vg(self) -> dict[str, int]:
        """The suite's expressions, in the layout of DIOR-RSVG."""
        drawn = self._balanced("suite_vg", suite.EXPRESSIONS)
        return self._rsvg(
            "SUITE_VG",
            ((split, scene, [(c.target, c.text) for c in own if c.target is not None]) for split, scene, own in drawn),
        )

    def _rsvg(self, directory: str, referred: Iterable[_Referred]) -> dict[str, int]:
        """Images, annotations, and per split the indices over all objects of the sorted annotation files.

        All objects of an image belong to one split here, unlike in the real set.
        """
        folder = self.root / directory
        (folder / "Annotations").mkdir(parents=True)
        lines: dict[str, list[int]] = {split: [] for split in SPLITS}
        objects = 0
        for number, (split, scene, references) in enumerate(referred, start=1):
            self._save(scene, folder / "JPEGImages" / f"{number:05d}.jpg")
            annotation = _annotation(f"{number:05d}.jpg", scene, references)
            ET.ElementTree(annotation).write(folder / "Annotations" / f"{number:05d}.xml")
            lines[split].extend(range(objects, objects + len(references)))
            objects += len(references)
        for split, indices in lines.items():
            (folder / f"{split}.txt").write_text("".join(f"{index}\n" for index in indices))
        return {split: len(indices) for split, indices in lines.items()}

    def _with_references(self, split: str) -> Iterator[tuple[Scene, list[tuple[int, str]]]]:
        """Scenes with an object that can be referred to, each with at most MOST_REFERENCES expressions."""
        for index in range(_BLOCK):
            scene = self._scene("dior_rsvg", split, index)
            rng = random.Random(scene.seed)
            references = referring(scene, rng)
            if references:
                yield scene, rng.sample(references, min(MOST_REFERENCES, len(references)))


def _paint(scene: Scene, path: Path) -> None:
    image = Image.fromarray(render(scene))
    if path.suffix == ".jpg":
        image.save(path, quality=JPEG_QUALITY, subsampling=0)  # full chroma: an object of ten pixels keeps its colour
    else:
        image.save(path)


def _tokens(sentence: str) -> list[str]:
    return [token for token in sentence.split() if token not in {".", ","}]


def _annotation(name: str, scene: Scene, references: list[tuple[int, str]]) -> ET.Element:
    """A DIOR-RSVG annotation: boxes in whole pixels, names without spaces as in DIOR."""
    top = ET.Element("annotation")
    ET.SubElement(top, "filename").text = name
    shape = ET.SubElement(top, "size")
    for side, value in (("width", scene.size), ("height", scene.size), ("depth", 3)):
        ET.SubElement(shape, side).text = str(value)
    for index, expression in references:
        item = scene.objects[index]
        node = ET.SubElement(top, "object")
        ET.SubElement(node, "name").text = item.kind.replace(" ", "")
        ET.SubElement(node, "pose").text = "Unspecified"
        box = ET.SubElement(node, "bndbox")
        for corner, edge in zip(("xmin", "ymin", "xmax", "ymax"), item.box, strict=True):
            ET.SubElement(box, corner).text = str(round(edge))
        ET.SubElement(node, "description").text = expression
    return top

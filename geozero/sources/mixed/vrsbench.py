"""VRSBench: captions, referring expressions and questions about 29,614 images of 512×512 px from DOTA and DIOR.

Layout: `Images_{train,val}/…png` (unpacking may nest the directory once more) beside `VRSBench_train.json` and
`VRSBench_EVAL_{Cap,referring,vqa}.json`; the archives of the images may lie there packed.
    train      {"id": "Final_Data/v1.2", "image": "P1427_0151.png",
                "conversations": [{"from": "human", "value": "<image>\\n[vqa] …"}, {"from": "gpt", "value": "…"}]}
    referring  {"image_id": "…png", "question": "…", "ground_truth": "{<45><45><59><59>}", "question_id": 0,
                "type": "ref", "unique": true, "obj_cls": "ship", …}
    vqa        {"image_id": "…png", "question": "…", "ground_truth": "…", "question_id": 0, "type": "object position"}
    Cap        {"image_id": "…png", "question": "…", "ground_truth": "…"}
Splits, official: train 85,813 questions, 36,313 expressions, 20,264 captions; the EVAL files become `test`: 37,409,
16,159, 9,350.
Licence: texts CC-BY-4.0; images as DOTA's and DIOR's (academic use; recalled, unverified).
Citation: Li et al., "VRSBench: A Versatile Vision-Language Benchmark Dataset for Remote Sensing Image Understanding",
NeurIPS 2024, arXiv 2406.12384.
Traps: `id` is the same for all; boxes are 0-100 of the sides, 8.8 % of the coordinates lie outside (from -73 to 196)
and some boxes are inverted (clamped and counted, or refused; inverted ones always refused); questions are wrapped in
templates ("[vqa] … A short answer to the question is"), which go. A name's numeric prefix is an image of DIOR, and so
of DIOR-RSVG.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from geozero.common.errors import BadRecord
from geozero.corpus.sample import Split, TaskName
from geozero.sources.base import Published, Record, Rejected, stem
from geozero.sources.instructions import Instructions, Turn
from geozero.sources.readers.annotations import json_items, text_of
from geozero.sources.readers.conversations import tagged, turns
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.tree import Tree

TRAIN = "VRSBench_train.json"
TRAIN_IMAGES, EVAL_IMAGES = "Images_train", "Images_val"  # may lie one deeper
EVALS: dict[str, TaskName] = {
    "VRSBench_EVAL_Cap.json": "caption",
    "VRSBench_EVAL_referring.json": "grounding",
    "VRSBench_EVAL_vqa.json": "vqa",
}
TASKS: dict[str, TaskName] = {"vqa": "vqa", "refer": "grounding", "caption": "caption"}
_DIOR, _DOTA = re.compile(r"\d{5}_\d+"), re.compile(r"P\d+_\d+")


@dataclass(frozen=True, kw_only=True)
class VrsBench(Instructions):
    tasks = ("vqa", "grounding", "caption")
    layout = "Images_{train,val}/<name>.png\nVRSBench_train.json, VRSBench_EVAL_{Cap,referring,vqa}.json"
    any_of = (TRAIN, *EVALS)
    folders = ("VRSBench",)
    published = Published(images=29_614, samples=205_308)

    name: str = "vrsbench"
    title: str = "VRSBench"
    size: str = "205,308 questions, expressions and captions, 29,614 images"
    licence: str = "texts CC-BY-4.0; pictures for academic use (recalled, unverified)"
    citation: str = "Li et al., NeurIPS 2024, arXiv 2406.12384"

    def find(self, tree: Tree) -> Tree:
        home = super().find(tree)
        while not len(ImageFiles(home)):
            if not home.mount_archives((TRAIN_IMAGES, EVAL_IMAGES, self.title)):
                raise home.absent(self.title, f"no images with the lists, expected {self.layout.splitlines()[0]}")
        return home

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        images = ImageFiles(tree)
        for file in (TRAIN, *EVALS):
            part: Split = "train" if file == TRAIN else "test"
            if file not in tree:
                yield Rejected(file, "split_missing", "no such file", part)
                continue
            for place, item in enumerate(json_items(tree, file)):
                try:
                    turn = self._trained(item) if file == TRAIN else self._evaluated(item, EVALS[file])
                    yield self.record(turn, images)
                except BadRecord as bad:
                    yield Rejected(f"{file}[{place}]", bad.reason, bad.detail, part)

    def _trained(self, item: Any) -> Turn:
        image, pairs = text_of(item, "image"), turns(item)
        if len(pairs) > 1:
            raise BadRecord("dialogue_not_a_task", f"{len(pairs)} turns")
        tag, asked = tagged(pairs[0][0])
        if tag not in TASKS:
            raise BadRecord("task_unknown", tag[:40] or "no tag")
        place = f"{TRAIN_IMAGES}/{image}"
        return Turn(TASKS[tag], "train", f"train/{stem(image)}", place, self._key(image), asked, pairs[0][1])

    def _evaluated(self, item: Any, task: TaskName) -> Turn:
        image, number = text_of(item, "image_id"), item.get("question_id", 0)
        kind = item.get("type") if task == "vqa" else None
        if task == "grounding" and isinstance(item.get("unique"), bool):
            kind = "unique" if item["unique"] else "non-unique"  # as the benchmark reports
        return Turn(
            task,
            "test",
            f"{task}/{stem(image)}/{number}",
            f"{EVAL_IMAGES}/{image}",
            self._key(image),
            "" if task == "caption" else text_of(item, "question"),
            text_of(item, "ground_truth"),
            question_type=kind if isinstance(kind, str) else None,
        )

    def _key(self, image: str) -> str:
        """The image's key: with the set that it was cut from, told by its name."""
        name = stem(image)
        origin = "dior" if _DIOR.fullmatch(name) else "dota" if _DOTA.fullmatch(name) else "other"
        return f"{self.name}/{origin}/{name}"

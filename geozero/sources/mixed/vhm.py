"""VHM-Instruct: the instruction data of VHM (H2RSVLM), made of many sets, with honest refusals among the answers.

Layout: `list_sft.json` (1.5 GB) beside one directory a source with `<source>/<source>-000000.tar`, … whose members are
the images; unpacked images in `<source>/` will do.
    {"image": "airport_1.jpg", "source_dataset": "AID",
     "conversations": [{"from": "human", "value": "<image>\\n{CLS} Classify …"}, {"from": "gpt", "value": "airport"}]}
Splits: all of it is train.
Licence: academic use only. Citation: Pang et al., "VHM: Versatile and Honest Vision Language Model for Remote Sensing
Image Analysis", AAAI 2025, arXiv 2403.20213.
Traps: the first words of a question name the task, `{CLS} {VQA} {VG} {IT} {IDK}`; {IT} (some are outlines of
buildings, thousands of characters long), {IDK} and untagged dialogues are none of our tasks and are refused. Names of
directories keep their typos (`DOIR-RSVG`, `corwdAI`). Boxes are read as 0-1000 of the sides (inferred from how the
model is evaluated, unverified), those with decimals at most 1 as fractions (option `boxes`). It holds RESISC45, AID,
UCM, RSVQA-LR and more: leaks by name are looked for with `source_dataset` in the image's key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from geozero.common.errors import BadRecord
from geozero.corpus.sample import TaskName
from geozero.sources.base import Record, Rejected, stem
from geozero.sources.instructions import Instructions, Turn
from geozero.sources.readers.annotations import json_items, text_of
from geozero.sources.readers.conversations import tagged, turns
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.tree import Tree
from geozero.tasks.boxes import Convention, parse_box

LIST = "list_sft.json"
TASKS: dict[str, TaskName] = {"cls": "scene_cls", "vqa": "vqa", "vg": "grounding"}
_FULL = 1000.0


@dataclass(frozen=True, kw_only=True)
class Vhm(Instructions):
    tasks = ("scene_cls", "vqa", "grounding")
    layout = "list_sft.json, <source>/<source>-<nnnnnn>.tar"
    required = (LIST,)
    folders = ("VHM-Instruct", "VHM_dataset_sft")

    name: str = "vhm"
    title: str = "VHM-Instruct"
    size: str = "list_sft.json of 1.5 GB"
    licence: str = "academic use only"
    citation: str = "Pang et al., AAAI 2025, arXiv 2403.20213"
    boxes: Convention = "norm1000"

    def find(self, tree: Tree) -> Tree:
        home = super().find(tree)
        home.mount_archives()  # the images lie packed beside the list, in tar files
        return home

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        images = ImageFiles(tree)
        for place, item in enumerate(json_items(tree, LIST)):
            try:
                yield from self.ask(self._turns(item, str(place)), images)
            except BadRecord as bad:
                yield Rejected(str(place), bad.reason, bad.detail, "train")

    def _turns(self, item: Any, key: str) -> list[Turn | Rejected]:
        image, origin = text_of(item, "image"), text_of(item, "source_dataset")
        found: list[Turn | Rejected] = []
        for number, (asked, answered) in enumerate(turns(item)):
            tag, question = tagged(asked)
            if tag not in TASKS:
                reason = "task_not_taken" if tag else "dialogue_not_a_task"
                found.append(Rejected(f"{key}#{number}", reason, tag[:40] or "no tag", "train"))
                continue
            found.append(
                Turn(
                    TASKS[tag],
                    "train",
                    f"{key}#{number}",
                    f"{origin}/{image}",
                    f"{self.name}/{origin}/{stem(image)}",
                    question,
                    _thousandths(answered) if tag == "vg" and self.boxes == "norm1000" else answered,
                    near=(origin,),
                )
            )
        return found


def _thousandths(answered: str) -> str:
    """A box written as fractions of the sides in thousandths; any other text as it is."""
    box = parse_box(answered)
    fractions = box is not None and max(box) <= 1 and "." in answered
    return str([v * _FULL for v in box]) if box is not None and fractions else answered

"""SkyEye-968k: instruction data made of other sets. It holds texts only; the images come from those sets.

Layout: a directory (any place below the given one) with
    caption/caption_{ERA,RSICD,Sydney,NWPU,RSITMD,UCM}_train.json, phrasegrounding/diorpg_train.json,
    multitask_conversation/{DIOR,DOTA,Sydney,UCM}_Conversa.json, vg/{rsvg.json,DIORvg_train.json},
    vqa/{DOTAvqa_train,EARVqa,RSVQAHR_train,RSVQALR_train,SydneyVqa,UCMvqa}.json
and, anywhere below the same given directory, the images of those sets. Each file is a list; the fields are unknown to
us. Assumed are `image` or `image_id`; `caption`; `question` with `answer` or `ground_truth`; or `conversations`. A file
whose first item has none of these stops the reading with the fields that it has. Boxes `{<x1><y1><x2><y2>}`, 0-100
(recalled, unverified).
Splits: all of it is train. `vg/rsvg.json` and `UCMvqa.json` name no split: contaminated until their images' names
have been compared with the test sets.
Licence: CC-BY-4.0. Citation: Zhan et al., "SkyEyeGPT: Unifying Remote Sensing Vision-Language Tasks via Instruction
Tuning with Large Language Model", arXiv 2401.09712.
Traps: file names repeat from set to set, so an image is looked for below a directory that begins with the set's name,
and one that could be several is refused. Untagged dialogues are no task and are refused, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.sample import TaskName
from geozero.sources.base import Record, Rejected, stem
from geozero.sources.instructions import Instructions, Turn
from geozero.sources.readers.annotations import json_items, text_of
from geozero.sources.readers.conversations import tagged, turns
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.tree import Tree

FILES: dict[str, tuple[TaskName | None, str]] = {  # → task (None: by the tag of each turn), set of the images
    **{f"caption_{s}_train.json": ("caption", s) for s in ("ERA", "RSICD", "Sydney", "NWPU", "RSITMD", "UCM")},
    **{f"{s}_Conversa.json": (None, s) for s in ("DIOR", "DOTA", "Sydney", "UCM")},
    "diorpg_train.json": ("grounding", "DIOR"),
    "rsvg.json": ("grounding", "RSVG"),
    "DIORvg_train.json": ("grounding", "DIOR"),
    "DOTAvqa_train.json": ("vqa", "DOTA"),
    "EARVqa.json": ("vqa", "ERA"),
    "RSVQAHR_train.json": ("vqa", "RSVQA-HR"),
    "RSVQALR_train.json": ("vqa", "RSVQA-LR"),
    "SydneyVqa.json": ("vqa", "Sydney"),
    "UCMvqa.json": ("vqa", "UCM"),
}
NEAR = {"ERA": ("ERA", "EAR")}  # its files and directories are found under both names
TAGS: dict[str, TaskName] = {"vqa": "vqa", "refer": "grounding", "caption": "caption", "vg": "grounding"}
_IMAGE = ("image", "image_id", "img", "filename")  # assumed, the first that is there
_ASKED, _ANSWERED = ("question", "text", "expression"), ("answer", "ground_truth", "caption")


@dataclass(frozen=True, kw_only=True)
class SkyEye(Instructions):
    tasks = ("caption", "vqa", "grounding")
    layout = (
        "caption/caption_<SET>_train.json, multitask_conversation/<SET>_Conversa.json, phrasegrounding/, vg/, vqa/ "
        "(fields assumed)\nthe images of those sets, anywhere below the same directory"
    )
    folders = ("SkyEye-968k",)

    name: str = "skyeye"
    title: str = "SkyEye-968k"
    size: str = "968,000 instructions"
    licence: str = "CC-BY-4.0"
    citation: str = "Zhan et al., arXiv 2401.09712"

    def find(self, tree: Tree) -> Tree:
        """The whole of what was given, because the images lie beside the texts.

        Raises:
            InputError: none of the files is there.
        """
        while not _texts(tree):
            if not tree.mount_archives((self.title, *self.folders)):
                tree.locate(self.title, (), tuple(FILES), self.folders)  # says what is missing
        return tree

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        images = ImageFiles(tree)
        for path in _texts(tree):
            task, origin = FILES[path.rpartition("/")[2]]
            for place, item in enumerate(json_items(tree, path)):
                if place == 0:
                    _check_fields(tree, path, item)
                key = f"{stem(path)}/{place}"
                try:
                    yield from self.ask(self._turns(item, key, task, origin), images)
                except BadRecord as bad:
                    yield Rejected(key, bad.reason, bad.detail, "train")

    def _turns(self, item: Any, key: str, task: TaskName | None, origin: str) -> list[Turn | Rejected]:
        image = text_of(item, _first(item, _IMAGE))
        image_key = f"{self.name}/{origin.lower().replace('-', '_')}/{stem(image)}"
        if "conversations" not in item:
            asked = "" if task == "caption" else text_of(item, _first(item, _ASKED))
            pairs = [(asked, text_of(item, _first(item, _ANSWERED)))]
        else:
            pairs = turns(item)
        found: list[Turn | Rejected] = []
        for number, (asked, answered) in enumerate(pairs):
            named = TAGS.get(tagged(asked)[0]) or task
            if named is None:
                found.append(Rejected(f"{key}#{number}", "dialogue_not_a_task", "no tag", "train"))
                continue
            found.append(
                Turn(
                    named,
                    "train",
                    f"{key}#{number}",
                    image,
                    image_key,
                    asked,
                    answered,
                    near=NEAR.get(origin, (origin,)),
                )
            )
        return found


def _texts(tree: Tree) -> list[str]:
    return [name for name in tree.names(suffixes=(".json",)) if name.rpartition("/")[2] in FILES]


def _first(item: Any, fields: tuple[str, ...]) -> str:
    """The first of these fields that an item has, else the first of all, for the message."""
    return next((field for field in fields if isinstance(item, dict) and field in item), fields[0])


def _check_fields(tree: Tree, path: str, item: Any) -> None:
    seen = sorted(item) if isinstance(item, dict) else []
    has_text = {"conversations", *_ANSWERED} & set(seen)
    if not set(_IMAGE) & set(seen) or not has_text:
        raise InputError(
            f"unknown fields: {', '.join(map(str, seen))[:200] or type(item).__name__}",
            tree.where(path),
            f"expected one of {', '.join(_IMAGE)} with conversations or one of {', '.join(_ANSWERED)}",
        )

"""The data sets by name. Each file of this room reads one of them in the layout in which it is distributed.

An adapter is imported when its data set is asked for, so that nobody depends on the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from geozero.common.errors import InputError
from geozero.sources import toy
from geozero.sources.base import Ratio, Record, Rejected, Source
from geozero.sources.options import with_options
from geozero.sources.readers.tree import Tree, open_tree

ADAPTERS = {  # name: the module below this package, and its class
    "aid": "scenes.aid:Aid",
    "rsvqa_lr": "questions.rsvqa_lr:RsvqaLr",
    "rsicd": "captions.rsicd:Rsicd",
    "dior_rsvg": "boxes.dior_rsvg:DiorRsvg",
    "resisc45": "scenes.resisc45:Resisc45",
    "eurosat": "scenes.eurosat:EuroSat",
    "nasc_tg2": "scenes.nasc_tg2:NascTg2",
    "whu_rs19": "scenes.whu_rs19:WhuRs19",
    "ucm": "scenes.ucm:Ucm",
    "siri_whu": "scenes.siri_whu:SiriWhu",
    "rsvqa_hr": "questions.rsvqa_hr:RsvqaHr",
    "ucm_captions": "captions.ucm_captions:UcmCaptions",
    "sydney_captions": "captions.sydney_captions:SydneyCaptions",
    "nwpu_captions": "captions.nwpu_captions:NwpuCaptions",
    "fmow": "scenes.fmow:Fmow",
    "rsvg": "boxes.rsvg:Rsvg",
    "vrsbench": "mixed.vrsbench:VrsBench",
    "skyeye": "mixed.skyeye:SkyEye",
    "vhm": "mixed.vhm:Vhm",
    "class_folders": "custom.classes:OwnClasses",
    "captions_json": "custom.captions:OwnCaptions",
    "coco": "custom.boxes:OwnBoxes",
    "voc": "custom.voc:OwnVoc",
    "yolo": "custom.yolo:OwnYolo",
    "questions": "custom.questions:OwnQuestions",
    "neon": "mixed.neon:Neon",
}


def _adapter(name: str) -> str:
    return (ADAPTERS | toy.SUITE)[toy.RENDERED.get(name, name)]


class _Sources(Mapping[str, Source]):
    """The data sets, each made when it is asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Source] = {}

    def __getitem__(self, name: str) -> Source:
        if name not in self._made:
            module, _, adapter = _adapter(name).partition(":")
            source: Source = getattr(import_module(f"{__name__}.{module}"), adapter)()
            self._made[name] = toy.rendered(source, name) if name in toy.RENDERED else source
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in ADAPTERS or name in toy.RENDERED

    def __iter__(self) -> Iterator[str]:
        yield from (*ADAPTERS, *toy.RENDERED)

    def __len__(self) -> int:
        return len(ADAPTERS) + len(toy.RENDERED)


SOURCES: Mapping[str, Source] = _Sources()


def get(name: str) -> Source:
    """The data set of this name.

    Raises:
        InputError: there is none; the message lists the names.
    """
    if name not in SOURCES:
        raise InputError(f"unknown source '{name}'", hint=f"one of {', '.join(SOURCES)}")
    return SOURCES[name]


def modules(name: str) -> tuple[str, ...]:
    """The modules that read the data set of this name; what they import is not among them."""
    module = f"{__name__}.{_adapter(name).partition(':')[0]}"
    return (module, toy.__name__) if name in toy.RENDERED else (module,)


__all__ = ["ADAPTERS", "SOURCES", "Ratio", "Record", "Rejected", "Source", "Tree"]
__all__ += ["get", "modules", "open_tree", "with_options"]

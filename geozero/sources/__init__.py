"""The data sets by name. Each file of this room reads one of them in the layout in which it is distributed."""

from __future__ import annotations

from geozero.common.errors import InputError
from geozero.sources.base import Ratio, Record, Rejected, Source
from geozero.sources.boxes.dior_rsvg import DiorRsvg
from geozero.sources.boxes.rsvg import Rsvg
from geozero.sources.captions.nwpu_captions import NwpuCaptions
from geozero.sources.captions.rsicd import Rsicd
from geozero.sources.captions.sydney_captions import SydneyCaptions
from geozero.sources.captions.ucm_captions import UcmCaptions
from geozero.sources.custom.boxes import OwnBoxes
from geozero.sources.custom.captions import OwnCaptions
from geozero.sources.custom.classes import OwnClasses
from geozero.sources.custom.questions import OwnQuestions
from geozero.sources.mixed.neon import Neon
from geozero.sources.mixed.skyeye import SkyEye
from geozero.sources.mixed.vhm import Vhm
from geozero.sources.mixed.vrsbench import VrsBench
from geozero.sources.questions.rsvqa_hr import RsvqaHr
from geozero.sources.questions.rsvqa_lr import RsvqaLr
from geozero.sources.readers.options import with_options
from geozero.sources.readers.tree import Tree, open_tree
from geozero.sources.scenes.aid import Aid
from geozero.sources.scenes.eurosat import EuroSat
from geozero.sources.scenes.fmow import Fmow
from geozero.sources.scenes.nasc_tg2 import NascTg2
from geozero.sources.scenes.resisc45 import Resisc45
from geozero.sources.scenes.siri_whu import SiriWhu
from geozero.sources.scenes.ucm import Ucm
from geozero.sources.scenes.whu_rs19 import WhuRs19
from geozero.sources.toy import TOY, TOY_HARD

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        *(Aid(), RsvqaLr(), Rsicd(), DiorRsvg()),
        *(Resisc45(), EuroSat(), NascTg2(), WhuRs19(), Ucm(), SiriWhu()),
        *(RsvqaHr(), UcmCaptions(), SydneyCaptions(), NwpuCaptions()),
        *(Fmow(), Rsvg(), VrsBench(), SkyEye(), Vhm()),
        *(OwnClasses(), OwnCaptions(), OwnBoxes(), OwnQuestions()),
        *(Neon(), *TOY, *TOY_HARD),
    )
}


def get(name: str) -> Source:
    """The data set of this name.

    Raises:
        InputError: there is none; the message lists the names.
    """
    if name not in SOURCES:
        raise InputError(f"unknown source '{name}'", hint=f"one of {', '.join(SOURCES)}")
    return SOURCES[name]


__all__ = ["SOURCES", "Ratio", "Record", "Rejected", "Source", "Tree", "get", "open_tree", "with_options"]

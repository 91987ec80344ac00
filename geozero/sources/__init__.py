"""The data sets by name. Each file of this room reads one of them in the layout in which it is distributed."""

from __future__ import annotations

from geozero.errors import InputError
from geozero.sources.aid import Aid
from geozero.sources.base import Ratio, Record, Rejected, Source
from geozero.sources.dior_rsvg import DiorRsvg
from geozero.sources.eurosat import EuroSat
from geozero.sources.fmow import Fmow
from geozero.sources.nasc_tg2 import NascTg2
from geozero.sources.neon import Neon
from geozero.sources.nwpu_captions import NwpuCaptions
from geozero.sources.options import with_options
from geozero.sources.own_boxes import OwnBoxes
from geozero.sources.own_captions import OwnCaptions
from geozero.sources.own_classes import OwnClasses
from geozero.sources.own_questions import OwnQuestions
from geozero.sources.resisc45 import Resisc45
from geozero.sources.rsicd import Rsicd
from geozero.sources.rsvg import Rsvg
from geozero.sources.rsvqa_hr import RsvqaHr
from geozero.sources.rsvqa_lr import RsvqaLr
from geozero.sources.siri_whu import SiriWhu
from geozero.sources.skyeye import SkyEye
from geozero.sources.sydney_captions import SydneyCaptions
from geozero.sources.toy import TOY, TOY_HARD
from geozero.sources.tree import Tree, open_tree
from geozero.sources.ucm import Ucm
from geozero.sources.ucm_captions import UcmCaptions
from geozero.sources.vhm import Vhm
from geozero.sources.vrsbench import VrsBench
from geozero.sources.whu_rs19 import WhuRs19

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
        raise InputError(f"unknown source '{name}'", mend=f"one of {', '.join(SOURCES)}")
    return SOURCES[name]


__all__ = ["SOURCES", "Ratio", "Record", "Rejected", "Source", "Tree", "get", "open_tree", "with_options"]

"""The rendered toy world, read by the adapters of the real data sets under other names.

The trees stand in the layouts of AID, RSVQA-LR, RSICD and DIOR-RSVG. Their own names keep the rendered images apart
from the real sets' keys. A set whose name ends in `_hard` is for evaluation alone: all of it is `test`.
"""

from __future__ import annotations

from dataclasses import replace

from geozero.sources.base import Ratio, Source
from geozero.sources.boxes.dior_rsvg import DiorRsvg
from geozero.sources.captions.rsicd import Rsicd
from geozero.sources.questions.rsvqa_lr import RsvqaLr
from geozero.sources.scenes.aid import Aid

LICENCE = "rendered by geozero itself"
CITATION = "none: geozero.toy"
SIZE = "as params.yaml says"
RATIO = Ratio(train=0.6, val=0.1)  # toy AID has few images: more of them to learn from, the rest is test [ours]

TOY: tuple[Source, ...] = (
    Aid(
        name="toy_aid",
        title="toy AID",
        licence=LICENCE,
        citation=CITATION,
        size=SIZE,
        labels=None,
        ratio=RATIO,
        stratify=False,
    ),
    RsvqaLr(name="toy_rsvqa_lr", title="toy RSVQA-LR", licence=LICENCE, citation=CITATION, size=SIZE),
    Rsicd(name="toy_rsicd", title="toy RSICD", licence=LICENCE, citation=CITATION, size=SIZE),
    DiorRsvg(name="toy_dior_rsvg", title="toy DIOR-RSVG", licence=LICENCE, citation=CITATION, size=SIZE),
)
TOY_HARD: tuple[Source, ...] = tuple(
    replace(source, name=f"{source.name}_hard", title=f"{source.title}, hard", forced_split="test") for source in TOY
)

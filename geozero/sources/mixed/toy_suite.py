"""The toy world's suite: questions whose answers take several steps (`geozero.toy.world.suite`), and no published set.

Layout: `SUITE_VQA/` as RSVQA-LR, `SUITE_VG/` as DIOR-RSVG.
Splits: train, val and test from scenes of their own. Licence: rendered by geozero itself.
Question types: parity, compared_sums, difference, two_hop, order; of expressions two_hop_grounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from geozero.sources.base import Published, Record, Rejected
from geozero.sources.boxes.dior_rsvg import DiorRsvg
from geozero.sources.questions.rsvqa_lr import RsvqaLr
from geozero.sources.readers.tree import Tree

GROUNDING_TYPE = "two_hop_grounding"


@dataclass(frozen=True, kw_only=True)
class SuiteQuestions(RsvqaLr):
    folders = ("SUITE_VQA", "SUITE-VQA")
    published = Published()

    name: str = "suite_vqa"
    title: str = "suite, questions"


@dataclass(frozen=True, kw_only=True)
class SuiteBoxes(DiorRsvg):
    folders = ("SUITE_VG", "SUITE-VG")
    published = Published()

    name: str = "suite_vg"
    title: str = "suite, grounding"

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        for item in super().read(tree):
            yield replace(item, question_type=GROUNDING_TYPE) if isinstance(item, Record) else item

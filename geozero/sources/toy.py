"""The rendered toy world, read by the adapters of the real data sets under other names.

The trees stand in the layouts of AID, RSVQA-LR, RSICD and DIOR-RSVG; so do those of the suite, whose adapters look for
them in directories of other names. Their own names keep the rendered images apart
from the real sets' keys. A set whose name ends in `_hard` is for evaluation alone: all of it is `test`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from geozero.sources.base import Ratio, Source

PREFIX, HARD = "toy_", "_hard"
SETS = ("aid", "rsvqa_lr", "rsicd", "dior_rsvg")
SUITE = {  # as ADAPTERS of geozero.sources, but only under the names of the toy world
    "suite_vqa": "mixed.toy_suite:SuiteQuestions",
    "suite_vg": "mixed.toy_suite:SuiteBoxes",
}
RENDERED = {
    f"{PREFIX}{name}{suffix}": name for suffix in ("", HARD) for name in (*SETS, *SUITE)
}  # and whose adapter reads it
RATIO = Ratio(train=0.6, val=0.1)  # toy AID has few images: more of them to learn from, the rest is test [ours]
OPTIONS: dict[str, dict[str, Any]] = {"aid": {"labels": None, "ratio": RATIO, "stratify": False}}


def rendered(source: Source, name: str) -> Source:
    """The rendered set of this name, read by the adapter of the real one."""
    hard = name.endswith(HARD)
    return replace(
        source,
        name=name,
        title=f"toy {source.title}{', hard' if hard else ''}",
        licence="rendered by geozero itself",
        citation="none: geozero.toy",
        size="as params.yaml says",
        forced_split="test" if hard else None,
        **OPTIONS.get(source.name, {}),
    )

"""What an ablation would take, arm by arm, without training anything: `--dry-run`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.ablation.arms import result_path, train
from geozero.common.errors import InputError
from geozero.workspace import Workspace

_HOURS = re.compile(r"hours\t([\d.e+-]+) ")


def start_model(workspace: Workspace) -> Path:
    """The model that arms would start from: the newest SFT run's, or the base where there is none yet."""
    try:
        return workspace.newest("sft")
    except InputError:
        return workspace.base


def lines(workspace: Workspace, todo: Sequence[tuple[str, int]], out: Path, model: Path) -> Iterator[str]:
    """One line an arm: trainings, how many are done, hours of one and of those that are missing; then the sum.

    The hours are those of `geozero a2grpo --dry-run`: an estimate on GPUs, measured by an earlier run on a CPU.
    """
    asked = Counter(arm for arm, _ in todo)
    missing = Counter(arm for arm, seed in todo if not result_path(out, arm, seed).is_file())
    total, unknown = 0.0, 0
    for arm, n in asked.items():
        plan: list[str] = []
        train(workspace, arm, 1, model, out, dry_run=True, on_line=plan.append)
        found = next((match for line in plan if (match := _HOURS.match(line))), None)
        if found is None:
            unknown += missing[arm]
            hours = "hours unknown before a run of this shape"
        else:
            total += float(found[1]) * missing[arm]
            hours = f"{float(found[1]):.3g} h each\t{float(found[1]) * missing[arm]:.3g} h"
        yield f"{arm}\t{n} trainings\t{n - missing[arm]} done\t{hours}"
    rest = f" and {unknown} trainings of unknown length" if unknown else ""
    yield f"in all\t{sum(missing.values())} trainings to do\t{total:.3g} h{rest}, without evaluation"

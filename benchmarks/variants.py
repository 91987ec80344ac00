"""Train a stage with other parameters and score it on `val`: `python -m benchmarks.variants a2grpo steps=60 steps=90`.

Run it where params.yaml and its finished data are (and, for a2grpo, an SFT run). Each word is a variant, its
parameters separated by commas (`steps=40,learning_rate=1e-3`); `-` is the file's own values. Variants of SFT are asked
directly and put through the preflight before RL, those of A²GRPO think first. Greedy except in the preflight; nothing
here looks at a test split, so this is where parameters are chosen. Finished variants are kept in runs/variants/.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from geozero.inference.corpus_job import CorpusJob, records_path, run_in_child
from geozero.params import Params
from geozero.tasks.text import is_well_formed, thought, words
from geozero.training.grpo import preflight
from geozero.training.replay import collect
from geozero.training.stage import run_a2grpo, run_sft
from geozero.workspace import Workspace

Stage = Literal["sft", "a2grpo"]


def changed(params: Params, stage: Stage, variant: str, seed: int | None) -> Params:
    """The parameters with a variant's values."""
    values = params.model_dump()
    for word in variant.split(",") if variant != "-" else ():
        name, _, value = word.partition("=")
        values[stage][name] = yaml.safe_load(value)
    return Params.model_validate(values | ({"seed": seed} if seed is not None else {}))


def answers(workspace: Workspace, model: Path, out: Path, **options: Any) -> list[dict[str, Any]]:
    """Records of the val questions of all sources that are trained on."""
    corpora = workspace.val_corpora
    settings = workspace.settings
    job = CorpusJob(
        model=str(model),
        corpora=tuple(map(str, corpora)),
        out=str(out),
        split="val",
        max_tokens=settings.a2grpo.max_completion_tokens,
        boxes=settings.model.boxes,
        engine=workspace.engine,
        seed=settings.seed,
        **options,
    )
    run_in_child(job, out.with_suffix(".log"))
    mode = options["modes"][0]
    return [row for path in corpora for row in json.loads(records_path(out, mode, path.name).read_text())]


def scores(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Question type or task → mean reward in percent, right or wrong where a question is closed, and n."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in records:
        closed = row["task"] in ("vqa", "scene_cls")
        found[row.get("question_type") or row["task"]].append(row["reward"] >= 1 if closed else row["reward"])
    return {name: f"{100 * np.mean(values):.1f} (n = {len(values)})" for name, values in sorted(found.items())}


def judge(workspace: Workspace, stage: Stage, model: Path, out: Path) -> dict[str, Any]:
    """What a variant's model answers on val."""
    if stage == "sft":
        group = workspace.settings.a2grpo.group_size
        limit = preflight.QUESTIONS_PER_SOURCE
        asked = answers(workspace, model, out / "gate", modes=("tagged",), samples=group, temperature=1.0, limit=limit)
        direct = answers(workspace, model, out / "direct", modes=("direct",))
        return {"gate": asdict(preflight.measure(asked)), **scores(direct)}
    found = answers(workspace, model, out / "tagged", modes=("tagged",))
    texts = [row["raw_output"] for row in found]
    about = {
        "well_formed": f"{100 * np.mean([is_well_formed(text) for text in texts]):.1f}",
        "thought_words": f"{np.mean([len(words(thought(text))) for text in texts]):.1f}",
    }
    return about | scores(found)


def main() -> int:
    """Train and score each variant, with each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=("sft", "a2grpo"))
    parser.add_argument("variants", nargs="*", default=["-"])
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", help="training seeds; the file's own if left out")
    given, _ = parser.parse_known_args()
    plain = Workspace.open(given.params)
    runs = plain.runs / "variants"
    for variant in given.variants or ["-"]:
        for seed in given.seeds or [None]:
            workspace = replace(plain, settings=changed(plain.settings, given.stage, variant, seed))
            begun = time.monotonic()
            if given.stage == "sft":
                share = workspace.settings.sft.replay_share
                replay = (
                    collect(workspace.settings, workspace.base, workspace.instruct, runs, lambda _: None)
                    if share
                    else []
                )
                result = run_sft(workspace.settings, workspace.instruct, workspace.base, runs, replay=replay)
            else:
                result = run_a2grpo(workspace.settings, workspace.hard, plain.newest("sft"), runs)
            seconds = time.monotonic() - begun
            found = judge(workspace, given.stage, result.model, result.directory)
            print(json.dumps({"variant": variant, "seed": workspace.settings.seed, "seconds": round(seconds)} | found))
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

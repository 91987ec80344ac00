"""The ablation: A²GRPO against SFT, stock GRPO and itself without its parts: `python -m benchmarks.ablation`.

Run it where params.yaml, its finished data and its SFT run are. Every arm starts from one SFT model and takes as many
steps over the same samples; what is finished is kept (`runs/ablation/`), so a stopped run goes on, arm by arm. Scores
follow the strict protocol: equality, IoU ≥ 0.5, and the captions' reward; greedy, tagged mode (the SFT arms: direct).
Intervals: bootstrap over seeds and samples, paired by both, so that arms are compared on the same questions.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from geozero import tasks
from geozero.atomic import write_text
from geozero.corpus import Corpus, write_json
from geozero.evaluation.inference import Job, records_path, run_in_child
from geozero.params import Params
from geozero.sample import Sample
from geozero.tasks.text import is_well_formed, thought, words
from geozero.training.metrics import read
from geozero.training.rewards import distinct
from geozero.training.stage import StageResult, run_a2grpo, run_sft
from geozero.workspace import Workspace

DRAWS = 2000
RIGHT_IOU = 0.5


@dataclass(frozen=True)
class Arm:
    """One way of going on from the SFT model.

    Attributes:
        stage: `sft` trains on in direct mode, `a2grpo` reinforces.
        changes: parameters of the stage that differ from the profile's.
        data: what is learned from.
        main: one of the three that get all seeds.
    """

    what: str
    stage: Literal["sft", "a2grpo"] = "a2grpo"
    changes: Mapping[str, Any] = field(default_factory=dict)
    data: Literal["instruct", "hard"] = "hard"
    main: bool = False


ARMS: dict[str, Arm] = {
    "sft": Arm("SFT continued for as many steps", "sft", data="instruct", main=True),
    "sft_hard": Arm("SFT continued on the hard samples", "sft"),
    "grpo": Arm("stock GRPO: R_a, KL on all tokens", changes={"thinking_weight": 0.0, "kl_tokens": "all"}, main=True),
    "a2grpo": Arm("A²GRPO", main=True),
    "no_gate": Arm("A²GRPO without gate: R_a + λ S_t", changes={"gate": "open", "uniform_groups": "keep"}),
    "no_constraint": Arm("A²GRPO without answer constraint", changes={"beta": 0.0}),
    "kl_everywhere": Arm("A²GRPO with KL on all tokens", changes={"kl_tokens": "all"}),
    "no_thinking": Arm("A²GRPO without thinking reward", changes={"thinking_weight": 0.0}),
    "plain_sigmoid": Arm("A²GRPO with a plain sigmoid gate", changes={"gate": "sigmoid", "uniform_groups": "keep"}),
}  # fmt: skip


def settings_of(params: Params, arm: Arm, seed: int) -> Params:
    """The profile with an arm's changes and a seed; SFT takes as many steps as RL does."""
    values = params.model_dump()
    values["seed"] = seed
    values[arm.stage] |= dict(arm.changes)
    if arm.stage == "sft":
        values["sft"] |= {"steps": params.a2grpo.steps, "replay_share": 0.0}
    return Params.model_validate(values)


def outcome(record: Mapping[str, Any], sample: Sample, boxes: Any) -> float:
    """How right an answer is under the strict protocol: 0 or 1, for a caption its reward."""
    found = tasks.get(sample.task).answer_reward(record["pred"], sample, boxes) if record["pred"] else 0.0
    if sample.task == "grounding":
        return float(found >= RIGHT_IOU)
    return float(found) if sample.task == "caption" else float(found >= 1.0)


def train(space: Workspace, arm_name: str, seed: int, start: Path, out: Path) -> StageResult:
    """One arm with one seed; a finished one is reused."""
    arm = ARMS[arm_name]
    params = settings_of(space.settings, arm, seed)
    corpus = space.hard if arm.data == "hard" else space.instruct
    run = run_sft if arm.stage == "sft" else run_a2grpo
    return run(params, corpus, start, out / "runs", f"{arm_name}-{seed}")


def judge(space: Workspace, arm_name: str, model: Path, out: Path, limit: int | None) -> dict[str, Any]:
    """Answer every test split and score each question."""
    mode: Any = "direct" if ARMS[arm_name].stage == "sft" else "tagged"
    corpora = space.corpora_with("test")
    boxes = space.settings.model.boxes
    job = Job(
        model=str(model),
        corpora=tuple(map(str, corpora)),
        out=str(out),
        modes=(mode,),
        max_tokens=space.settings.evaluation.max_tokens,
        limit=limit,
        boxes=boxes,
        engine=space.engine,
    )
    run_in_child(job, out / "answers.log")
    outcomes: dict[str, dict[str, dict[str, float]]] = {}
    texts: list[str] = []
    for path in corpora:
        samples = {s.id: s for s in Corpus(path).samples("test")}
        source = next(iter(samples.values())).source
        for record in json.loads(records_path(out, mode, source).read_text()):
            sample = samples[record["sample"]]
            outcomes.setdefault(source, {}).setdefault(sample.task, {})[sample.id] = outcome(record, sample, boxes)
            texts.append(record["raw_output"])
    return {
        "outcomes": outcomes,
        "well_formed": sum(map(is_well_formed, texts)) / len(texts),
        "thought_words": sum(len(words(thought(text))) for text in texts) / len(texts) if mode == "tagged" else 0.0,
        "distinct": distinct(texts) if mode == "tagged" else 0.0,
    }


def split_of(source: str) -> str:
    """Which table a source belongs to: the easy test split, the hard one, or real imagery."""
    return "test_hard" if source.endswith("_hard") else "test" if source.startswith("toy_") else source


Outcomes = dict[str, npt.NDArray[np.float64]]


def table_of(results: Sequence[Mapping[str, Any]], split: str) -> Outcomes:
    """Task → outcomes of one arm, shape (seeds, samples), seeds and samples in a fixed order."""
    found: Outcomes = {}
    names = sorted({task for r in results for s, by in r["outcomes"].items() if split_of(s) == split for task in by})
    for task in names:
        rows = []
        for result in sorted(results, key=lambda r: int(r["seed"])):
            merged: dict[str, float] = {}
            for source, by_task in result["outcomes"].items():
                if split_of(source) == split:
                    merged |= by_task.get(task, {})
            rows.append([merged[key] for key in sorted(merged)])
        found[task] = np.array(rows, dtype=np.float64)
    return found


def mean_over_tasks(table: Outcomes) -> float:
    """Mean over tasks of the mean over seeds and samples."""
    return float(np.mean([values.mean() for values in table.values()]))


def draws(
    tables: Mapping[str, Outcomes], rng: np.random.Generator, n: int = DRAWS
) -> dict[str, npt.NDArray[np.float64]]:
    """Bootstrap of `mean_over_tasks` of every arm, shape (n,): the same seeds and samples are drawn for all arms.

    Seeds are paired by their place; an arm with fewer seeds takes the drawn place modulo its number.
    """
    found = {name: np.empty(n) for name in tables}
    most = max(next(iter(table.values())).shape[0] for table in tables.values())
    sizes = {task: values.shape[1] for table in tables.values() for task, values in table.items()}
    for i in range(n):
        seeds = rng.integers(0, most, most)
        chosen = {task: rng.integers(0, size, size) for task, size in sorted(sizes.items())}
        for name, table in tables.items():
            means = []
            for task, values in table.items():
                places = seeds % values.shape[0]
                means.append(values[places][:, chosen[task]].mean())
            found[name][i] = np.mean(means)
    return found


def compare(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> dict[str, float]:
    """The paired difference of two arms: mean, 95 % interval, two-sided bootstrap p-value."""
    difference = ours - theirs
    tail = min((difference <= 0).mean(), (difference >= 0).mean())
    low, high = np.percentile(difference, [2.5, 97.5])
    return {
        "difference": float(difference.mean()),
        "low": float(low),
        "high": float(high),
        "p_value": min(1.0, 2 * float(tail)),
    }


def report(results: Sequence[Mapping[str, Any]], seed: int = 7) -> dict[str, Any]:
    """Every arm on every split with intervals, and A²GRPO against each other arm."""
    by_arm = {arm: [r for r in results if r["arm"] == arm] for arm in ARMS if any(r["arm"] == arm for r in results)}
    splits = sorted({split_of(source) for r in results for source in r["outcomes"]})
    found: dict[str, Any] = {"arms": {}, "splits": {}}
    for arm, rows in by_arm.items():
        names = ("well_formed", "thought_words", "distinct", "answer_kl", "seconds")
        means = {name: float(np.mean([r[name] for r in rows])) for name in names}
        found["arms"][arm] = {"what": ARMS[arm].what, "seeds": len(rows), **means}
    for split in splits:
        tables = {arm: table for arm, rows in by_arm.items() if (table := table_of(rows, split))}
        drawn = draws(tables, np.random.default_rng(seed))
        found["splits"][split] = {
            arm: {
                "mean": mean_over_tasks(tables[arm]),
                "interval": [float(v) for v in np.percentile(drawn[arm], [2.5, 97.5])],
                "tasks": {task: float(values.mean()) for task, values in tables[arm].items()},
                **(
                    {"a2grpo minus it": compare(drawn["a2grpo"], drawn[arm])}
                    if "a2grpo" in drawn and arm != "a2grpo"
                    else {}
                ),
            }
            for arm in tables
        }
    return found


def page(found: Mapping[str, Any]) -> str:
    """The report as Markdown tables."""
    lines = ["# Ablation", ""]
    for split, arms in found["splits"].items():
        lines += [
            f"## {split}",
            "",
            "| arm | seeds | mean over tasks | 95 % | A²GRPO minus it | p |",
            "|---|---|---|---|---|---|",
        ]
        for arm, row in arms.items():
            about, low_high = found["arms"][arm], " – ".join(f"{v:.3f}" for v in row["interval"])
            other = row.get("a2grpo minus it")
            gap = f"{other['difference']:+.3f} [{other['low']:+.3f}, {other['high']:+.3f}]" if other else ""
            chance = f"{other['p_value']:.3f}" if other else ""
            lines.append(f"| {about['what']} | {about['seeds']} | {row['mean']:.3f} | {low_high} | {gap} | {chance} |")
        lines.append("")
    lines += [
        "## How they think",
        "",
        "| arm | well formed | words | distinct-3 | KL | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["arms"].values():
        shown = " | ".join(
            f"{row[k]:.3g}" for k in ("well_formed", "thought_words", "distinct", "answer_kl", "seconds")
        )
        lines.append(f"| {row['what']} | {shown} |")
    return "\n".join([*lines, ""])


def run(space: Workspace, names: Sequence[str], seeds: int, few: int, out: Path, limit: int | None) -> dict[str, Any]:
    """All arms with all seeds, seed by seed, so that a stopped run has compared something; then the report."""
    start, results = space.newest("sft"), []
    for seed in range(1, seeds + 1):
        for arm in names:
            if seed > few and not ARMS[arm].main:
                continue
            target = out / "results" / f"{arm}-{seed}.json"
            if not target.is_file():
                begun = time.monotonic()
                result = train(space, arm, seed, start, out)
                seconds = time.monotonic() - begun
                answers = result.directory / "answers"
                answers.mkdir(exist_ok=True)
                found = judge(space, arm, result.model, answers, limit)
                kls = [row["answer_kl"] for row in read(result.directory / "metrics.jsonl") if "answer_kl" in row]
                kl = float(np.mean(kls)) if kls else 0.0
                target.parent.mkdir(parents=True, exist_ok=True)
                write_json(target, {"arm": arm, "seed": seed, "seconds": seconds, "answer_kl": kl, **found})
                print(f"{arm}, seed {seed}: {seconds:.0f} s", flush=True)
            results.append(json.loads(target.read_text()))
    found = report(results)
    write_json(out / "ablation.json", found)
    write_text(out / "ablation.md", page(found))
    return found


def main() -> int:
    """Run what is missing and print the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, default=10, help="of the three main arms")
    parser.add_argument("--few", type=int, default=3, help="seeds of the other arms")
    parser.add_argument("--limit", type=int, help="questions a test split; all if left out")
    parser.add_argument("--out", type=Path, help="runs/ablation beside params.yaml if left out")
    options = parser.parse_args()
    space = Workspace.open(options.params)
    out = options.out or space.runs / "ablation"
    print(page(run(space, options.arms, options.seeds, options.few, out, options.limit)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the arms' outcomes say: means, intervals over seeds and samples, paired differences; and as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.ablation.arms import ARMS, arm_of

DRAWS = 2000
OURS, STOCK = "a2grpo", "grpo"
WINDOW = 8  # steps of the running mean of R_a
SHAPES = ("well_formed", "thinks", "thought_words", "distinct")  # what the tables show of thoughts
COSTS = ("answer_kl", "silent", "rounds", "guarded", "sampled_tokens", "seconds", "cpu_seconds")
STEPS = "steps_to_stock"

Outcomes = dict[str, npt.NDArray[np.float64]]


def rows_of(results: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Row of the tables → its results by seed: an arm in the mode it was trained in, and in each other one."""
    found: dict[str, list[dict[str, Any]]] = {}
    for arm in sorted({r["arm"] for r in results}, key=_rank):
        of_arm = sorted((r for r in results if r["arm"] == arm), key=lambda r: int(r["seed"]))
        for mode in arm_of(arm).modes:
            rows = [{**r, **r["modes"][mode]} for r in of_arm]
            if rows:
                found[name_of(arm, mode)] = rows
    return found


def _rank(arm: str) -> tuple[int, float]:
    base, _, beta = arm.partition("@")
    return list(ARMS).index(base), float(beta or -1)


def name_of(arm: str, mode: str) -> str:
    return arm if mode == arm_of(arm).modes[0] else f"{arm}, {mode}"


def what(row: str) -> str:
    """A row's name as a reader sees it."""
    arm, _, mode = row.partition(", ")
    found = arm_of(arm)
    return f"{found.what}, asked {mode or found.modes[0]}" if len(found.modes) > 1 else found.what


def split_of(source: str) -> str:
    """Which table a source belongs to: the easy test split, the hard one, or real imagery."""
    return "test_hard" if source.endswith("_hard") else "test" if source.startswith("toy_") else source


def _place(split: str) -> tuple[int, str]:
    """The splits that decide come first, the one that chooses comes last."""
    return {"test_hard": 0, "test": 1, "val": 3}.get(split, 2), split


def table_of(rows: Sequence[Mapping[str, Any]], split: str) -> Outcomes:
    """Task → outcomes of one row, shape (seeds, samples), seeds and samples in a fixed order."""
    found: Outcomes = {}
    names = sorted({task for r in rows for s, by in r["outcomes"].items() if split_of(s) == split for task in by})
    for task in names:
        values = []
        for row in rows:
            merged: dict[str, float] = {}
            for source, by_task in row["outcomes"].items():
                if split_of(source) == split:
                    merged |= by_task.get(task, {})
            values.append([merged[key] for key in sorted(merged)])
        found[task] = np.array(values, dtype=np.float64)
    return found


def mean_over_tasks(table: Outcomes) -> float:
    """Mean over tasks of the mean over seeds and samples."""
    return float(np.mean([values.mean() for values in table.values()]))


def draws(
    tables: Mapping[str, Outcomes], rng: np.random.Generator, n: int = DRAWS
) -> dict[str, npt.NDArray[np.float64]]:
    """Bootstrap of `mean_over_tasks` of every row, shape (n,): the same seeds and samples are drawn for all rows.

    Seeds are paired by their place; a row with fewer seeds takes the drawn place modulo its number.
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
    """The paired difference of two rows: mean, 95 % interval, two-sided bootstrap p-value."""
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
    """Every row on every split with intervals, and A²GRPO against each other row."""
    by_row = rows_of(results)
    splits = sorted({split_of(s) for rows in by_row.values() for r in rows for s in r["outcomes"]}, key=_place)
    found: dict[str, Any] = {"arms": {}, "splits": {}}
    last = smoothed(by_row.get(STOCK, []))
    target = float(last[-1]) if len(last) else None
    for name, rows in by_row.items():
        about = {key: _mean([r.get(key) for r in rows]) for key in (*SHAPES, *COSTS)}
        found["arms"][name] = {"what": what(name), "seeds": len(rows), **about, STEPS: steps_to(rows, target)}
    for split in splits:
        tables = {name: table for name, rows in by_row.items() if (table := table_of(rows, split))}
        drawn = draws(tables, np.random.default_rng(seed))
        found["splits"][split] = {
            name: {
                "mean": mean_over_tasks(table),
                "interval": [float(v) for v in np.percentile(drawn[name], [2.5, 97.5])],
                "tasks": {task: float(values.mean()) for task, values in table.items()},
                "by_seed": [float(v) for v in np.mean([values.mean(axis=1) for values in table.values()], axis=0)],
                "n": {task: int(values.shape[1]) for task, values in table.items()},
                **({f"{OURS} minus it": _against(tables, name, seed)} if OURS in tables and name != OURS else {}),
            }
            for name, table in tables.items()
        }
    return found


def _against(tables: Mapping[str, Outcomes], name: str, seed: int) -> dict[str, float]:
    """A²GRPO minus another row, over the seeds that both have, so that each pair shares its seed."""
    shared = min(next(iter(tables[n].values())).shape[0] for n in (OURS, name))
    pair = {n: {task: values[:shared] for task, values in tables[n].items()} for n in (OURS, name)}
    drawn = draws(pair, np.random.default_rng(seed))
    exact = mean_over_tasks(pair[OURS]) - mean_over_tasks(pair[name])
    return compare(drawn[OURS], drawn[name]) | {"difference": exact, "seeds": shared}


def smoothed(rows: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float64]:
    """R_a by step: the mean over an arm's seeds, a running mean over `WINDOW` steps; empty where none was logged."""
    curves = [row["answer_rewards"] for row in rows if row.get("answer_rewards")]
    if not curves:
        return np.array([])
    mean = np.mean([curve[: min(map(len, curves))] for curve in curves], axis=0)
    window = np.ones(min(WINDOW, len(mean))) / min(WINDOW, len(mean))
    return np.asarray(np.convolve(mean, window, mode="valid"), dtype=np.float64)


def steps_to(rows: Sequence[Mapping[str, Any]], target: float | None) -> float | None:
    """After how many steps an arm's smoothed R_a reaches what stock GRPO ends with; None where it never does."""
    curve = smoothed(rows)
    reached = np.flatnonzero(curve >= target - 1e-9) if target is not None and len(curve) else np.array([])
    n_steps = min(len(row["answer_rewards"]) for row in rows if row.get("answer_rewards")) if len(curve) else 0
    return float(reached[0] + 1 + n_steps - len(curve)) if len(reached) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def markdown(found: Mapping[str, Any], start: str = "sft") -> str:
    """The report as Markdown tables; scores in percent, differences in points."""
    lines = [f"# Ablation, from the start `{start}`", ""]
    for split, rows in found["splits"].items():
        tasks = list(next(iter(rows.values()))["tasks"])
        sizes = ", ".join(f"{n} {task}" for task, n in next(iter(rows.values()))["n"].items())
        lines += [
            f"## {split}: n = {sizes}",
            "",
            f"| arm | seeds | {' | '.join(tasks)} | mean over tasks | 95 % | A²GRPO minus it | p |",
            "|---" * (6 + len(tasks)) + "|",
        ]
        for name, row in rows.items():
            by_task = " | ".join(f"{100 * row['tasks'][task]:.1f}" for task in tasks)
            between = " – ".join(f"{100 * v:.1f}" for v in row["interval"])
            gap, chance = gap_of(row)
            about = found["arms"][name]
            lines.append(
                f"| {about['what']} | {about['seeds']} | {by_task} | {100 * row['mean']:.1f} | {between} "
                f"| {gap} | {chance} |"
            )
        lines.append("")
    lines += [
        "## How they think, and what it costs",
        "",
        "| arm | well formed | think | words | distinct-3 | KL | groups dropped | further rounds a step "
        "| steps with a guard crossed | sampled tokens | seconds | CPU seconds | steps to stock GRPO's last R_a |",
        "|---" * 13 + "|",
    ]
    for row in found["arms"].values():
        lines.append(f"| {row['what']} | {' | '.join(shown(row[k]) for k in (*SHAPES, *COSTS, STEPS))} |")
    return "\n".join([*lines, ""])


def gap_of(row: Mapping[str, Any]) -> tuple[str, str]:
    """A²GRPO minus a row in points with its interval, and p; empty for A²GRPO itself."""
    other = row.get(f"{OURS} minus it")
    if other is None:
        return "", ""
    between = f"{100 * other['low']:+.1f}, {100 * other['high']:+.1f}"
    return f"{100 * other['difference']:+.1f} [{between}]", f"{other['p_value']:.3f}"


def shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"

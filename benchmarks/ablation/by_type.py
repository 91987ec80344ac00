"""A²GRPO against other arms, question type by question type: paired by seed and question, Holm over types."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablation.arms import ARMS, with_beta
from benchmarks.ablation.statistics import OURS, split_of
from geozero.corpus.store import Corpus
from geozero.evaluation.statistics import holm
from geozero.params import Params

DRAWS = 4_000
Questions = Mapping[str, tuple[str, str]]  # sample → question type, image


def questions_of(corpora: Iterable[Path]) -> dict[str, tuple[str, str]]:
    """Question type (else the task) and image of every val and test sample."""
    return {
        sample.id: (sample.question_type or sample.task, sample.image_id)
        for path in dict.fromkeys(corpora)
        for sample in Corpus(path).samples()
        if sample.split != "train"
    }


def compared(
    ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]], questions: Questions, seed: int = 7
) -> dict[str, dict[str, dict[str, float]]]:
    """split → question type → ours minus theirs, over the seeds that both have.

    The 95 % interval and the two-sided p-value are a bootstrap's that draws seeds and, apart from them, images: seeds
    share their questions, and questions about one image are no independent ones. `p_holm` is corrected for the number
    of types of a split.

    Args:
        ours, theirs: results of one arm each, with `outcomes` of one mode.
    """
    by_seed = [{int(r["seed"]): _flat(r["outcomes"]) for r in arm} for arm in (ours, theirs)]
    thinking = [{int(r["seed"]): _by_split(r.get("thinking", {})) for r in arm} for arm in (ours, theirs)]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    found: dict[str, dict[str, dict[str, float]]] = {}
    if not seeds:
        return found
    for split in sorted({split for arm in by_seed for s in seeds for split in arm[s]}):
        kinds: dict[str, list[str]] = defaultdict(list)
        for name in sorted(by_seed[0][seeds[0]].get(split, {})):
            if name in questions:
                kinds[questions[name][0]].append(name)
        rows = {}
        for kind, names in sorted(kinds.items()):
            first, second = (np.array([[arm[s][split][n] for n in names] for s in seeds]) for arm in by_seed)
            images = np.unique([questions[n][1] for n in names], return_inverse=True)[1]
            rows[kind] = _difference(first, second, images, np.random.default_rng(seed))
            for side, arm in zip(("ours", "theirs"), thinking, strict=True):
                said = [arm[s].get(split, {}).get(n) for s in seeds for n in names]
                if None not in said:
                    rows[kind][f"{side}_think"] = float(np.mean([bool(one) for one in said]))
        for row, p in zip(rows.values(), holm([row["p_value"] for row in rows.values()]), strict=True):
            row["p_holm"] = p
        found[split] = rows
    return found


def all_tables(
    results: Sequence[Mapping[str, Any]], questions: Questions, chosen: Mapping[str, Any], params: Params
) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Title → `compared` of A²GRPO with each other arm, both at the profile's β, then each at its own β."""
    arms: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        arms[result["arm"]].append({**result, **next(iter(result["modes"].values()))})
    own = {name: with_beta(params, name, about["beta"]) for name, about in chosen.items()}
    found = {}
    for name in (name for name in ARMS if name != OURS):
        pairs = {_title(name): (OURS, name)}
        if name in own and OURS in own:
            pairs[f"{_title(name)}, β chosen for each"] = own[OURS], own[name]
        for title, (ours, theirs) in pairs.items():
            if arms[ours] and arms[theirs]:
                found[title] = compared(arms[ours], arms[theirs], questions)
    return found


def _flat(outcomes: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """split → sample → outcome."""
    merged = {
        source: {k: v for values in by_task.values() for k, v in values.items()} for source, by_task in outcomes.items()
    }
    return _by_split(merged)


def _by_split(by_source: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for source, values in by_source.items():
        found[split_of(source)] |= values
    return dict(found)


def _difference(first: Any, second: Any, images: Any, rng: np.random.Generator) -> dict[str, float]:
    """Of two arms' outcomes (seeds, questions); `images` numbers each question's image."""
    n_seeds, n_images = first.shape[0], int(images.max()) + 1
    sizes = np.bincount(images, minlength=n_images)
    sums = np.array([np.bincount(images, row, minlength=n_images) for row in first - second])  # (seeds, images)
    drawn_seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=DRAWS)
    drawn_images = rng.multinomial(n_images, np.full(n_images, 1 / n_images), size=DRAWS)
    drawn = ((drawn_seeds @ sums) * drawn_images).sum(axis=1) / (n_seeds * (drawn_images @ sizes))
    low, high = np.percentile(drawn, [2.5, 97.5])
    tail = min((drawn <= 0).mean(), (drawn >= 0).mean())
    return {
        "ours": float(first.mean()),
        "theirs": float(second.mean()),
        "difference": float((first - second).mean()),
        "low": float(low),
        "high": float(high),
        "p_value": min(1.0, 2 * float(tail)),
        "seeds": n_seeds,
        "questions": first.shape[1],
        "images": n_images,
    }


HEADER = (
    *("question type", "questions", "seeds", "A²GRPO", "other", "difference", "95 %", "p, Holm"),
    *("A²GRPO thinks", "other thinks", "foreseen"),
)


def foresee(tables: Mapping[str, Any], probed: Mapping[str, Any]) -> None:
    """Put what `geozero probe-thinking --predict` expects of A²GRPO minus stock GRPO beside what came out."""
    expected = {
        row["question_type"]: row["predicted"]["a2grpo_minus_grpo"] for row in probed["rows"] if row.get("predicted")
    }
    for title, by_split in tables.items():
        if title == _title("grpo"):
            for rows in by_split.values():
                for kind, row in rows.items():
                    if kind in expected:
                        row["foreseen"] = expected[kind]


def cells(kind: str, row: Mapping[str, float]) -> list[str]:
    """One type's row under `HEADER`: scores in percent, differences in points."""
    found = [kind, str(row["questions"]), str(row["seeds"]), f"{100 * row['ours']:.1f}", f"{100 * row['theirs']:.1f}"]
    found += [f"{100 * row['difference']:+.1f}", f"{100 * row['low']:+.1f}, {100 * row['high']:+.1f}"]
    found.append(f"{row['p_holm']:.3f}")
    found += [f"{100 * row[name]:.0f}" if name in row else "" for name in ("ours_think", "theirs_think")]
    return [*found, f"{100 * row['foreseen']:+.1f}" if "foreseen" in row else ""]


def markdown(title: str, found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """The tables of one comparison."""
    lines: list[str] = []
    for split, rows in found.items():
        lines += [f"### {title}, {split}", "", f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
        lines += [f"| {' | '.join(cells(kind, row))} |" for kind, row in rows.items()]
        lines.append("")
    return lines


def _title(name: str) -> str:
    return f"A²GRPO against {ARMS[name].what}"

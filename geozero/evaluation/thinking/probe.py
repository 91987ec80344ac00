"""Where can thinking pay? Per question type, before any training: a, g and p0 of a model, from kept completions.

Every question is asked in three ways, with `samples` completions each, in tagged mode:

- freely (`tagged`): p0 is the share of completions that think.
- with the answer's opening tag prefilled (`forced`): g is the share of right ones, answers without a thought.
- with the beginning of a thought prefilled (`opened`): a is the share of right ones among those that went on to think.

A completion thinks if a thought of at least `full_words` words stands before its `<answer>`. A model that rarely thinks
is so made to think about *every* question, not only about those that it thinks about by itself. The beginning is the
first word of a full thought that the model wrote about another question, so it says nothing about the image; if it
wrote none, `OPENING`. Thoughts of the user's own (`given`) are prefilled as a whole, and all their answers count.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geozero import tasks
from geozero.common import process
from geozero.common.atomic import make_parent, write_json
from geozero.common.errors import InputError
from geozero.corpus.sample import stable_choice
from geozero.corpus.store import Corpus
from geozero.evaluation.statistics import cluster_ids, paired_differences, share_interval
from geozero.evaluation.thinking.two_mode import ARMS, TwoModes, predict
from geozero.inference.corpus_job import CorpusJob, records_path, run, run_in_child
from geozero.metrics.scores import Floats, ratio
from geozero.tasks.text import OPEN_TAG, has_thought, thought, words

FULL_WORDS = 10
OPENING = "The image shows"
PAYS = 0.2  # a − g from which thinking can pay (METHOD, Where thinking pays)
RARE = 0.15  # p0 up to which thoughts are rare
GUESSABLE = 0.05  # g from which answers can be guessed
BEGINNINGS, RESULT = "beginnings.json", "thinking.json"
MODES = ("tagged", "forced", "opened")


@dataclass(frozen=True)
class Probe:
    """What is asked, and what counts as thinking.

    Attributes:
        job: the free questions: tagged mode, several sampled completions of each.
        full_words: words of a thought from which a completion thinks.
        opening: how every thought begins; None: as the model's own do.
        given: whole thoughts by sample id, for these questions alone.
    """

    job: CorpusJob
    full_words: int = FULL_WORDS
    opening: str | None = None
    given: Mapping[str, str] | None = None

    def thinks(self, text: str) -> bool:
        """Whether a full thought stands before the answer; a text without any answer is none."""
        return has_thought(text) and len(words(thought(text))) >= self.full_words


def probe(settings: Probe, on_line: Callable[[str], None] = print) -> dict[str, Any]:
    """Ask what is not answered yet, then measure; writes and returns the result (`RESULT`).

    Raises:
        InputError: as `corpus_job.run`; no given thought is about a question that is asked.
    """
    out = Path(settings.job.out)
    job = replace(settings.job, modes=("tagged",), prefilled=settings.job.limit or _most(settings.job))
    _answer(job, on_line)
    records = read_records(out, sources(job), ("tagged",))["tagged"]
    file = out / BEGINNINGS
    make_parent(file)
    begun = beginnings(settings, records)
    write_json(file, begun)
    _answer(replace(job, opened=str(file)), on_line)
    kept = read_records(out, sources(job), MODES)
    kept["opened"] = [row for row in kept["opened"] if row["sample"] in begun]  # not those of an earlier probe
    result = measure(settings, kept)
    write_json(out / RESULT, result)
    return result


def _answer(job: CorpusJob, on_line: Callable[[str], None]) -> None:
    """Here, or in a process for each GPU where several are visible."""
    if len(process.visible_gpus()) > 1:
        run_in_child(job, Path(job.out) / "answers.log", on_line)
    else:
        run(job, on_line)


def _most(job: CorpusJob) -> int:
    return max(sum(1 for _ in Corpus(path).samples(job.split)) for path in job.corpora)


def sources(job: CorpusJob) -> list[str]:
    """The sources of the job's corpora, one each."""
    return [next(iter(Corpus(path).samples(job.split))).source for path in job.corpora]


def read_records(out: Path, names: Iterable[str], modes: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """The kept completions by prompt mode; a source that was not asked in a mode has none."""
    found: dict[str, list[dict[str, Any]]] = {mode: [] for mode in modes}
    for mode, rows in found.items():
        for name in names:
            path = records_path(out, mode, name)
            rows += json.loads(path.read_bytes()) if path.is_file() else []
    return found


def beginnings(settings: Probe, free: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """How the answer to each question has to begin so that it thinks.

    Raises:
        InputError: no given thought is about any of these questions.
    """
    asked = {row["sample"]: row["task"] for row in free}
    if settings.given is not None:
        found = {name: f"{text.strip()} {OPEN_TAG}" for name, text in settings.given.items() if name in asked}
        if not found:
            raise InputError("no thought is about a question that is asked", hint="name samples by their `id`")
        return found
    if settings.opening is not None:
        return dict.fromkeys(asked, settings.opening)
    own: dict[str, list[tuple[str, str]]] = defaultdict(list)  # task → (sample, first word)
    for row in free:
        if settings.thinks(row["raw_output"]):
            own[row["task"]].append((row["sample"], row["raw_output"].split()[0]))
    chosen = {}
    for name, task in asked.items():
        words_of_others = [word for sample, word in own[task] if sample != name]
        chosen[name] = stable_choice(words_of_others, name, salt="opening") if words_of_others else OPENING
    return chosen


# --- what the completions say -----------------------------------------------------------------------------


def measure(settings: Probe, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """a, g and p0 of every question type of every source, and of each source as a whole, from kept completions."""
    places: dict[tuple[str, str], dict[str, list[Mapping[str, Any]]]] = defaultdict(lambda: {m: [] for m in MODES})
    for mode, rows in records.items():
        for row in rows:
            if "error" in row:
                continue
            for kind in {str(row["question_type"] or row["task"]), "all"}:
                places[row["source"], kind][mode].append(row)
    whole = {source: sum(1 for name, _ in places if name == source) for source, _ in places}
    rows = [
        _row(settings, source, kind, by_mode)
        for (source, kind), by_mode in sorted(places.items(), key=_order)
        if kind != "all" or whole[source] > 2
    ]
    about = {"full_words": settings.full_words, "opening": settings.opening, "given": settings.given is not None}
    job = asdict(settings.job)
    kept = ("model", "corpora", "split", "limit", "samples", "temperature", "max_tokens", "seed", "boxes")
    return {**{name: job[name] for name in kept}, **about, "rows": rows}


def _order(place: tuple[tuple[str, str], Any]) -> tuple[str, bool, str]:
    (source, kind), _ = place
    return source, kind == "all", kind


def _row(settings: Probe, source: str, kind: str, by_mode: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    free, forced = by_mode["tagged"], by_mode["forced"]
    opened = [row for row in by_mode["opened"] if settings.given is not None or settings.thinks(row["raw_output"])]
    thinking = [row for row in free if settings.thinks(row["raw_output"])]
    terse = [row for row in free if not settings.thinks(row["raw_output"])]
    gap = _gap(forced, opened)
    a, g, p0 = share(opened), share(forced), share(free, [float(settings.thinks(row["raw_output"])) for row in free])
    return {
        "source": source,
        "question_type": kind,
        "task": free[0]["task"] if free else None,
        "questions": len({row["sample"] for row in free}),
        "p0": p0,
        "g": g,
        "a": a,
        "a_minus_g": gap,
        "went_on": len(opened) / len(by_mode["opened"]) if by_mode["opened"] else None,
        "a_free": share(thinking),
        "g_free": share(terse),
        "tokens": {"long": _tokens(opened), "short": _tokens(terse or forced)},
        "words": {"long": _words(opened), "short": _words(terse or forced)},
        "can_pay": None if gap is None else gap["value"] >= PAYS,
        "rare": p0 is not None and p0["value"] <= RARE,
        "guessable": g is not None and g["value"] >= GUESSABLE,
    }


def value(row: Mapping[str, Any]) -> float:
    """1 for a right answer, 0 for a wrong one; where a task knows no right or wrong, its reward."""
    right = tasks.get(row["task"]).succeeds(row["reward"])
    return float(row["reward"] if right is None else right)


def share(rows: Sequence[Mapping[str, Any]], values: Sequence[float] | None = None) -> dict[str, Any] | None:
    """The mean of the completions' values with its 95 % interval, completions about one image being one cluster."""
    if not rows:
        return None
    found = np.array([value(row) for row in rows] if values is None else values)
    clusters = cluster_ids([row["image_id"] for row in rows])
    return {"value": float(found.mean()), "interval": share_interval(found, clusters), "n": len(rows)}


def _gap(terse: Sequence[Mapping[str, Any]], thinking: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """a − g over the questions that were answered both ways, paired by question and clustered by image."""
    sums: list[dict[str, list[float]]] = []
    for rows in (terse, thinking):
        by_sample: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for row in rows:
            by_sample[row["sample"]][0] += 1
            by_sample[row["sample"]][1] += value(row)
        sums.append(by_sample)
    both = sorted(sums[0].keys() & sums[1].keys())
    if not both:
        return None
    first, second = (np.array([one[name] for name in both]) for one in sums)
    images = {row["sample"]: row["image_id"] for row in terse}
    clusters = cluster_ids([images[name] for name in both])
    found = paired_differences(first, second, _mean, clusters).get("mean") if len(both) > 1 else None
    plain = float(second[:, 1].sum() / second[:, 0].sum() - first[:, 1].sum() / first[:, 0].sum())
    interval = None if found is None else [max(-1.0, found.low), min(1.0, found.high)]
    return {"value": plain, "interval": interval, "questions": len(both)}


def _mean(sums: Floats) -> dict[str, Floats]:
    return {"mean": ratio(sums[..., 1], sums[..., 0])}


def _tokens(rows: Sequence[Mapping[str, Any]]) -> float | None:
    return float(np.mean([row["n_tokens"] for row in rows])) if rows else None


def _words(rows: Sequence[Mapping[str, Any]]) -> float | None:
    return float(np.mean([len(words(thought(row["raw_output"]))) for row in rows])) if rows else None


# --- what it promises -------------------------------------------------------------------------------------


def predicted(row: Mapping[str, Any], **training: Any) -> dict[str, Any] | None:
    """The expected accuracy after GRPO and after A²GRPO by the model with one decision; None without a, g or p0.

    p0 is kept half a completion away from 0 and 1, since a share of exactly 0 could never grow.

    Args:
        training: `steps`, `beta`, `weight`, … of `TwoModes`, and `l0`, the words of a thought that S_t pays in full.
    """
    if row["a"] is None or row["g"] is None or row["p0"] is None:
        return None
    l0 = training.pop("l0", 40)
    edge = 0.5 / row["p0"]["n"]
    modes = TwoModes(
        p0=min(1 - edge, max(edge, row["p0"]["value"])),
        a=row["a"]["value"],
        g=row["g"]["value"],
        long=max(1.0, row["tokens"]["long"]),
        short=max(1.0, row["tokens"]["short"]),
        score_long=min(1.0, row["words"]["long"] / l0),
        score_short=min(1.0, row["words"]["short"] / l0),
        **training,
    )
    start = float(modes.accuracy(modes.p0))
    outcomes = {name: asdict(outcome) for name, outcome in predict(modes).items()}
    gains = {name: outcomes[name]["accuracy"] - start for name in ARMS}
    return {"start": start, "outcomes": outcomes, "gains": gains, "a2grpo_minus_grpo": gains["a2grpo"] - gains["grpo"]}


# --- how it is shown --------------------------------------------------------------------------------------

COLUMNS = ("source", "question type", "n", "p0", "g", "a", "a − g", "went on", "thinking can pay")
PREDICTED = ("at the start", "GRPO", "A²GRPO", "A²GRPO − GRPO")


def table(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Header and rows; shares in percent with their 95 % intervals, differences in points."""
    foreseen = any(row.get("predicted") for row in result["rows"])
    lines = [(*COLUMNS, *(PREDICTED if foreseen else ()))]
    for row in result["rows"]:
        cells = [row["source"], row["question_type"], str(row["questions"])]
        cells += [_cell(row[name]) for name in ("p0", "g", "a", "a_minus_g")]
        cells += ["" if row["went_on"] is None else f"{100 * row['went_on']:.0f}", verdict(row)]
        if foreseen:
            found = row.get("predicted")
            cells += _foreseen(found) if found else [""] * len(PREDICTED)
        lines.append(tuple(cells))
    return lines


def verdict(row: Mapping[str, Any]) -> str:
    """Yes or no, with what is missing; where an interval holds the bound, that is said."""
    gap = row["a_minus_g"]
    if gap is None:
        return "unknown: no thinking completion"
    conditions = {
        "a − g is small": row["can_pay"],
        "thoughts are not rare": row["rare"],
        "guesses fail": row["guessable"],
    }
    missing = [what for what, there in conditions.items() if not there]
    low, high = gap["interval"] or (gap["value"], gap["value"])
    open_yet = " (n too small to be sure)" if low < PAYS <= high else ""
    return ("no: " + ", ".join(missing) if missing else "yes") + open_yet


def _cell(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    between = "" if found["interval"] is None else " [{:.1f}, {:.1f}]".format(*(100 * v for v in found["interval"]))
    return f"{100 * found['value']:.1f}{between}"


def _foreseen(found: Mapping[str, Any]) -> list[str]:
    outcomes = found["outcomes"]
    values = (found["start"], outcomes["grpo"]["accuracy"], outcomes["a2grpo"]["accuracy"])
    return [*(f"{100 * v:.1f}" for v in values), f"{100 * found['a2grpo_minus_grpo']:+.1f}"]

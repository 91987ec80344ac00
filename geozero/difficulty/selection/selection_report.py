"""The selection as one page: pass rates per task and source, what a moved threshold changes, examples of each band."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined

from geozero import params, tasks
from geozero.common.atomic import write_text
from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import decode, thumbnail
from geozero.corpus.sample import Sample
from geozero.corpus.store import Corpus
from geozero.difficulty import answer_store
from geozero.difficulty.answer_store import Answers
from geozero.difficulty.scoring import reward_of
from geozero.difficulty.selection.bands import BANDS, Bools, Candidates, Difficulty, choose, measure
from geozero.difficulty.selection.histogram import histogram
from geozero.tasks.boxes import from_model, is_degenerate

THUMBNAIL_SIDE = 192
EXAMPLES = 6  # a band
ANSWERS_SHOWN = 5  # different ones, of an example
LONGEST_TEXT = 300  # characters of a question or an answer
STEPS = (-2, -1, 0, 1, 2)  # that a threshold is moved, in answers of K
MEANING = {
    "easy": "goes to GeoZero-Instruct",
    "hard_learnable": "goes to GeoZero-Hard first",
    "hard_unsolved": "goes to GeoZero-Hard up to its share",
    "suspect": "never right, all answers agree: the label may be wrong; selected by nobody",
    "unused": "between the thresholds",
    "unreadable": "most of its requests failed",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """All that the page tells of one selection."""

    corpus: Corpus
    store: Path
    fingerprints: Sequence[str]
    k: int
    settings: params.Select
    candidates: Candidates
    answers: Answers
    found: Difficulty
    instruct: Bools
    hard: Bools
    numbers: Mapping[str, Any]


def write_page(chosen: Selection, out: Path) -> None:
    """Write the page; it needs nothing else, not even the network.

    Raises:
        InputError: it cannot be written there, or an image of the corpus is gone.
    """
    environment = Environment(
        loader=PackageLoader("geozero.difficulty.selection"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    text = environment.get_template("selection.html.j2").render(
        name=chosen.corpus.path.name,
        k=chosen.k,
        settings=chosen.settings,
        numbers=chosen.numbers,
        bands=BANDS,
        meaning=MEANING,
        tables=[
            (name, [(row, counts, *_went(chosen, column == row)) for row, counts in chosen.numbers[key].items()])
            for name, key, column in (
                ("task", "bands_by_task", chosen.candidates.tasks),
                ("source", "bands_by_source", chosen.candidates.sources),
            )
        ],
        charts=[*_charts(chosen, chosen.candidates.tasks), *_charts(chosen, chosen.candidates.sources)],
        moves=[*moved(chosen, "easy"), *moved(chosen, "hard")],
        examples=_examples(chosen),
    )
    try:
        write_text(out, text)
    except OSError as error:
        raise InputError(f"cannot write: {error.strerror}", str(out), "choose another --html") from None


def _went(chosen: Selection, rows: Bools) -> tuple[int, int]:
    """How many of these samples Instruct and Hard take."""
    return int((chosen.instruct & rows).sum()), int((chosen.hard & rows).sum())


def _charts(chosen: Selection, column: npt.NDArray[np.str_]) -> list[dict[str, Any]]:
    """One histogram a name in the column, as bars in percent of the tallest."""
    charts = []
    for name in sorted(set(column.tolist())):
        rates = chosen.found.rate[column == name]
        counts = np.array(histogram(rates, chosen.k)["counts"])
        last = max(1, len(counts) - 1)
        bars = [
            {
                "height": 100 * int(n) / max(1, int(counts.max())),
                "n": int(n),
                "rate": i / last,
                "kind": "easy"
                if i / last >= chosen.settings.easy
                else "hard"
                if i / last <= chosen.settings.hard
                else "unused",
            }
            for i, n in enumerate(counts)
        ]
        charts.append({"name": name, "bars": bars, "n": len(rates), "mean": _mean(rates)})
    return charts


def moved(chosen: Selection, name: str) -> list[dict[str, Any]]:
    """How the two sets change when one threshold moves by an answer or two and all else stays."""
    rows = []
    current = float(getattr(chosen.settings, name))
    for step in STEPS:
        value = round(current + step / chosen.k, 6)
        if not 0 < value <= 1:
            continue
        settings = chosen.settings.model_copy(update={name: value})
        band = measure(chosen.answers, chosen.candidates, settings).band
        instruct, hard = choose(band, chosen.candidates, settings)
        row = {"threshold": name, "value": value, "current": step == 0}
        for label, now, before, eligible in (
            ("instruct", instruct, chosen.instruct, band == "easy"),
            ("hard", hard, chosen.hard, np.char.startswith(band, "hard")),
        ):
            row[label] = {
                "eligible": int(eligible.sum()),
                "n": int(now.sum()),
                "enter": int((now & ~before).sum()),
                "leave": int((before & ~now).sum()),
            }
        rows.append(row)
    return rows


def _examples(chosen: Selection) -> list[tuple[str, list[dict[str, Any]]]]:
    """A few samples of each band, spread over tasks and sources by stable hash, with their images and answers."""
    rows: dict[str, int] = {}
    for band in BANDS:
        rows |= dict.fromkeys(_spread(chosen, band), 0)
    numbers = {i: row for row, i in enumerate(chosen.candidates.ids.to_pylist()) if i in rows}
    samples = {s.id: s for s in chosen.corpus.samples() if s.id in numbers}
    said: dict[str, list[dict[str, Any]]] = {}
    for fold, key in enumerate(chosen.fingerprints):
        mine = [i for i, row in numbers.items() if chosen.candidates.folds[row] == fold]
        said |= answer_store.answers_to(chosen.store / key, pa.array(mine, pa.string()), chosen.k)
    shown: dict[str, list[dict[str, Any]]] = {band: [] for band in BANDS}
    for i, row in numbers.items():
        shown[str(chosen.found.band[row])].append(_shown(chosen, samples[i], row, said.get(i, [])))
    return [(band, examples) for band, examples in shown.items() if examples]


def _spread(chosen: Selection, band: str) -> list[str]:
    """Ids of up to `EXAMPLES` samples of a band, one of each (task, source) after the other."""
    cells: dict[tuple[str, str], list[int]] = {}
    rows = np.flatnonzero(chosen.found.band == band)
    for row in rows[np.argsort(chosen.candidates.order[rows], kind="stable")].tolist():
        cells.setdefault((chosen.candidates.tasks[row], chosen.candidates.sources[row]), []).append(row)
    turns = [cells[cell][turn] for turn in range(EXAMPLES) for cell in sorted(cells) if turn < len(cells[cell])]
    return [str(chosen.candidates.ids[row].as_py()) for row in turns[:EXAMPLES]]


def _shown(chosen: Selection, sample: Sample, row: int, said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    try:
        small = thumbnail(decode(chosen.corpus.image_bytes(sample.image_id)), THUMBNAIL_SIDE)
    except (BadRecord, KeyError) as error:
        where = str(chosen.corpus.path)
        raise InputError(f"image {sample.image_id}: {error}", where, "make the corpus again") from None
    task = tasks.get(sample.task)
    counts: dict[str, dict[str, Any]] = {}
    for answer in said:
        text, failed = str(answer["text"]).strip() or "(nothing)", not answer["given"]
        reward = 0.0 if failed else reward_of(answer["text"], sample, chosen.candidates.boxes)
        success = None if failed else task.succeeds(reward)
        if failed:
            text = "(failed)"
        elif success is None:  # relative to its source, see `bands.measure`
            success = chosen.found.caption_succeeds(sample.source, reward)
        graded = reward if task.success_reward is None and not failed else None
        known = counts.setdefault(text, {"text": _short(text), "n": 0, "success": success, "reward": graded})
        known["n"] += 1
    answers = sorted(counts.values(), key=lambda a: -int(a["n"]))[:ANSWERS_SHOWN]
    label, boxes = _short(sample.answer), []
    if task.answers_are_boxes:
        means = answer_store.convention(chosen.store / chosen.fingerprints[chosen.candidates.folds[row]])
        for answer in answers:
            for found in task.read_boxes(answer["text"]) or ():
                if not is_degenerate(found):
                    place = from_model(found, sample.width, sample.height, means)
                    boxes.append(_place(place, sample, "right" if answer["success"] else "wrong"))
        if means != "pixels":
            label += f" in pixels, {task.shown_truth(sample, means)} as the model counts"
    boxes += [_place(box, sample, "label") for box in task.true_boxes(sample)]
    return {
        "sample": sample,
        "question": _short(sample.question),
        "label": label,
        "image": "data:image/jpeg;base64," + base64.b64encode(small).decode(),
        "boxes": boxes,
        "rate": chosen.found.rate[row],
        "n": int(chosen.found.n[row]),
        "answers": answers,
        "others": max(0, len(counts) - ANSWERS_SHOWN),
        "went": "Instruct" if chosen.instruct[row] else "Hard" if chosen.hard[row] else "",
    }


def _place(box: Sequence[float], sample: Sample, kind: str) -> dict[str, Any]:
    """A box within its image, in percent of the sides."""
    x1, x2 = (min(max(v / sample.width, 0.0), 1.0) for v in (box[0], box[2]))
    y1, y2 = (min(max(v / sample.height, 0.0), 1.0) for v in (box[1], box[3]))
    sides = {"left": x1, "top": y1, "width": x2 - x1, "height": y2 - y1}
    return {"kind": kind, **{name: 100 * value for name, value in sides.items()}}


def _mean(rates: npt.NDArray[np.float64]) -> float | None:
    known = rates[~np.isnan(rates)]
    return float(known.mean()) if known.size else None


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " …"

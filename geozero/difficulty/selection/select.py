"""From pass rates to two corpora: GeoZero-Instruct of the easy samples, GeoZero-Hard of the hard ones."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geozero import params
from geozero.common.atomic import replacing, write_json
from geozero.common.errors import InputError
from geozero.common.hash_set import HashSet64
from geozero.corpus.sample import SCHEMA, Split, digest, fold_of, stable_unit
from geozero.corpus.store import Corpus, CorpusWriter, refer_images
from geozero.difficulty import answer_store, scoring
from geozero.difficulty.adaptive import rule_file, stopping_rule
from geozero.difficulty.adaptive.stopping_rule import Rule
from geozero.difficulty.answer_store import Answers
from geozero.difficulty.scoring import Spots, score_key
from geozero.difficulty.selection import histogram
from geozero.difficulty.selection.bands import BANDS, Bools, Candidates, Difficulty, choose, measure
from geozero.difficulty.selection.selection_report import Selection, write_page
from geozero.difficulty.work_list import Columns
from geozero.tasks.boxes import Convention

log = logging.getLogger(__name__)

SUSPECT_COLUMNS = ("id", "task", "source", "image_key", "question", "label", "model_answer")
SPLIT: Split = "train"  # val chooses and test is only reported: neither is ever selected (METHOD, SFT)


def select(
    corpus: Path,
    store: Path,
    out_instruct: Path,
    out_hard: Path,
    settings: params.Select | None = None,
    *,
    k: int | None = None,
    metrics: Path | None = None,
    plot: Path | None = None,
    pass_rates: Path | None = None,
    html: Path | None = None,
) -> dict[str, Any]:
    """Write GeoZero-Instruct and GeoZero-Hard, and return the numbers that `metrics` gets.

    Beside `out_hard`: `suspect.parquet` and `suspect.csv`, the list of probably wrong labels, which are never
    selected. Run again on the same answers and settings it leaves the corpora as they are.

    Args:
        corpus: directory of the corpus that was sampled; its training samples are candidates.
        store: the answer store, complete for them.
        out_instruct: corpus of the easy samples.
        out_hard: corpus of the hard samples.
        settings: thresholds and sizes.
        k: answers per sample that count, the first ones; None: as many as the last complete sampling asked for.
        metrics: JSON file for the numbers.
        plot: image of the pass rates (PNG, SVG or PDF).
        pass_rates: Parquet file of every candidate's pass rate and band; default `pass_rates.parquet` beside
            `out_hard`.
        html: a page to look at: histograms, examples of each band, what a moved threshold changes.

    Raises:
        InputError: store and corpus do not belong together, answers are missing, or nothing is selected.
    """
    settings = settings or params.Select()
    if plot is not None:
        histogram.check_name(plot)  # before anything is written
    source = Corpus(corpus)
    state = answer_store.current(store)
    if k is not None and k != state["k"]:  # a stopping rule is for one K
        state = {"fingerprints": state["fingerprints"], "k": k}
    k, fingerprints = int(state["k"]), [str(key) for key in state["fingerprints"]]
    boxes = answer_store.convention(store / fingerprints[0])
    candidates = load_candidates(source, len(fingerprints), boxes)
    answers, rules = load_answers(store, corpus, candidates, state, settings)
    found = measure(answers, candidates, settings)
    for name, ties in found.caption_ties.items():
        verdict = "count as successes" if name in found.ties_succeed else "fail (select.captions: median)"
        median = found.caption_medians[name]
        log.warning("%s: %d captions' rewards equal their source's median of %.3f and %s", name, ties, median, verdict)
    instruct, hard = choose(found.band, candidates, settings)
    # what people look at first: it explains a selection that fails, too
    _write_suspects(source, _suspected(store, fingerprints, candidates, found), out_hard)
    table = _table(candidates, found, instruct, hard)
    _write_table(table, pass_rates or out_hard.with_name("pass_rates.parquet"))
    numbers = _numbers(candidates, found, instruct, hard, k)
    if rules:
        numbers["adaptive"] = stopping_rule.account(rules, int(found.n.sum()), len(found.n) * k)
    if metrics is not None:
        metrics.parent.mkdir(parents=True, exist_ok=True)
        write_json(metrics, numbers)
    if plot is not None:
        histogram.draw(numbers["histogram"], plot, settings.easy, settings.hard)
    if html is not None:
        parts = (source, store, fingerprints, k, settings, candidates, answers, found, instruct, hard, numbers)
        write_page(Selection(*parts), html)
    for name, chosen in (("easy", instruct), ("hard", hard)):
        if not chosen.any():
            raise InputError(
                f"no {name} samples among {len(candidates.ids)}", str(store), "change the thresholds, or the model"
            )
    origin = {"stage": "select", "corpus": source.digest, "fingerprints": fingerprints, "k": k}
    origin["settings"] = settings.identity()
    _write_corpus(source, candidates.ids, instruct, out_instruct, origin)
    _write_corpus(source, candidates.ids, hard, out_hard, origin)
    return numbers


def load_candidates(corpus: Corpus, folds: int, boxes: Convention = "norm1000") -> Candidates:
    """The training samples of a corpus.

    Args:
        folds: of the filtering models.
        boxes: what coordinates in the answers mean.

    Raises:
        InputError: it has none.
    """
    types = (pa.string(), pa.string(), object, object, np.int64, np.float64, object, np.int64)
    columns, spots, names = Columns(types), Spots(), dict[str, str]()  # equal names once, however many samples
    for s in corpus.samples(split=SPLIT):
        spots.offer(columns.n, s)
        task, source, kind = (names.setdefault(name, name) for name in (s.task, s.source, stopping_rule.kind_of(s)))
        prompt, fold = answer_store.prompt_hash(s), fold_of(s.image_key, folds)
        columns.add(s.id, prompt, task, source, fold, stable_unit(s.id, "select"), kind, score_key(s, boxes))
    if not columns.n:
        raise InputError("the corpus has no training samples", str(corpus.path), "select from GeoZero-Raw")
    ids, prompts, tasks, sources, folds_of, order, kinds, keys = columns.finish()
    return Candidates(
        ids,
        prompts,
        tasks.astype(str),
        sources.astype(str),
        folds_of,
        order,
        kinds,
        keys,
        boxes,
        partial(corpus.samples, split=SPLIT),
        spots.chosen,
    )


def load_answers(
    store: Path, corpus: Path, candidates: Candidates, state: Mapping[str, Any], settings: params.Select
) -> tuple[Answers, list[Rule]]:
    """All answers to the candidates, each fold's from its own model's directory, and the rule of each fold by which
    a sample may have fewer than K of them (none: all have K).

    Args:
        state: what `store.current` gives.
        settings: the thresholds of this selection; a rule foresees the decisions of certain ones alone.

    Raises:
        InputError: answers are missing, or the rule was made for other thresholds.
    """
    k, fingerprints = int(state["k"]), [str(key) for key in state["fingerprints"]]
    answers = Answers.empty(len(candidates.ids), k)
    for fold, key in enumerate(fingerprints):
        scoring.load(store / key, candidates.truth, k, candidates.folds == fold, answers)
    if not answers.present.any():
        raise InputError(
            "the store holds no answer to a sample of this corpus",
            f"{store} and {corpus}",
            "give the pair that belongs, or run `geozero sample` first",
        )
    rules = _rules(store, fingerprints, state.get("adaptive"), settings)
    complete = answers.present.all(axis=1)
    if rules:
        complete |= stopping_rule.decided(rules, candidates.folds, candidates.kinds, answers, candidates.closed)
    if not complete.all():
        raise InputError(
            f"only {int(complete.sum())} of {len(candidates.ids)} samples have all {k} answers"
            + (" or are decided" if rules else ""),
            str(store),
            "run `geozero sample` to its end first",
        )
    return answers, rules


def _rules(store: Path, fingerprints: list[str], key: str | None, settings: params.Select) -> list[Rule]:
    if key is None:
        return []
    found = [rule_file.load(store / name, key) for name in fingerprints]
    for rule in found:
        if rule is not None and (rule.easy, rule.hard) != (settings.easy, settings.hard):
            raise InputError(
                f"the store was sampled adaptively for easy {rule.easy} and hard {rule.hard}, "
                f"not {settings.easy} and {settings.hard}",
                str(store),
                "run `geozero sample` with these thresholds: it asks only what they leave open",
            )
    # a fold without a sample of its own never learned a rule
    return [rule or stopping_rule.never(settings) for rule in found]


def _write_corpus(corpus: Corpus, ids: pa.Array, chosen: Bools, out: Path, origin: Mapping[str, Any]) -> None:
    """Write the chosen samples, streamed; leave a corpus alone that holds exactly these, undamaged."""
    selected = sorted(ids.filter(pa.array(chosen)).to_pylist())
    made_by = {**origin, "selected": digest("\n".join(selected).encode())}
    with suppress(InputError):  # none there yet, or a damaged one
        there = Corpus(out)
        if there.manifest["made_by"] == made_by:
            there.verify()
            return
    needed = HashSet64()
    for rows in _chosen(corpus, chosen, ["image_id"]):
        for image_id in rows.column("image_id").to_pylist():
            needed.add(image_id)
    with CorpusWriter(out, made_by) as writer:
        refer_images(writer, corpus, needed)
        for rows in _chosen(corpus, chosen, SCHEMA.names):
            writer.add_table(rows)


def _chosen(corpus: Corpus, chosen: Bools, names: list[str]) -> Iterator[pa.Table]:
    """Columns of the chosen ones of the candidates, which are the training samples in their stored order."""
    start = 0
    for batch in corpus.columns("samples", list(dict.fromkeys(["split", *names]))):
        rows = pa.Table.from_batches([batch])
        rows = rows.filter(pc.equal(rows.column("split"), SPLIT))
        yield rows.filter(pa.array(chosen[start : start + len(rows)])).select(names)
        start += len(rows)


def _suspected(store: Path, fingerprints: list[str], candidates: Candidates, found: Difficulty) -> dict[str, str]:
    """Id of each suspect sample and what its model says instead of the label."""
    said: dict[str, str] = {}
    for fold, key in enumerate(fingerprints):
        rows = (found.band == "suspect") & (candidates.folds == fold)
        if rows.any():
            said.update(answer_store.first_answers(store / key, candidates.ids.filter(pa.array(rows))))
    return said


def _write_suspects(corpus: Corpus, said: dict[str, str], out_hard: Path) -> None:
    """The samples whose label is doubtful, for people to look at."""
    rows = [
        {
            "id": s.id,
            "task": s.task,
            "source": s.source,
            "image_key": s.image_key,
            "question": s.question,
            "label": s.answer,
            "model_answer": said[s.id],
        }
        for s in corpus.samples(split=SPLIT)
        if s.id in said
    ]
    schema = pa.schema([(name, pa.string()) for name in SUSPECT_COLUMNS])
    _write_table(pa.Table.from_pylist(rows, schema=schema), out_hard.with_name("suspect.parquet"))
    path = out_hard.with_name("suspect.csv")
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, SUSPECT_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _table(candidates: Candidates, found: Difficulty, instruct: Bools, hard: Bools) -> pa.Table:
    """Every candidate with its pass rate, its band and where it went."""
    chosen = np.select([instruct, hard], ["instruct", "hard"], "")
    return pa.table(
        {
            "id": candidates.ids,
            "task": candidates.tasks,
            "source": candidates.sources,
            "fold": pa.array(candidates.folds, pa.int32()),
            "n": pa.array(found.n, pa.int32()),
            "n_success": pa.array(found.n_success, pa.int32()),
            "p": pa.array(found.rate, pa.float64(), from_pandas=True),
            "mean_reward": pa.array(found.mean_reward, pa.float64(), from_pandas=True),
            "distinct": pa.array(found.distinct, pa.int32()),
            "n_truncated": pa.array(found.truncated, pa.int32()),
            "n_errors": pa.array(found.errors, pa.int32()),
            "band": found.band,
            "selected": pa.array(chosen, pa.string(), mask=chosen == ""),
        }
    )


def _write_table(table: pa.Table, path: Path) -> None:
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _numbers(candidates: Candidates, found: Difficulty, instruct: Bools, hard: Bools, k: int) -> dict[str, Any]:
    """What the metrics file and the report hold: plain numbers."""

    def by(column: npt.NDArray[np.str_], rows: Bools | None = None) -> dict[str, dict[str, int]]:
        kept = slice(None) if rows is None else rows
        counts = Counter(zip(column[kept].tolist(), found.band[kept].tolist(), strict=True))
        names = sorted({str(name) for name in column[kept].tolist()})
        return {name: {band: counts[(name, band)] for band in BANDS} for name in names}

    total = int(found.n.sum())
    return {
        "k": k,
        "n_samples": len(candidates.ids),
        "bands": {band: int((found.band == band).sum()) for band in BANDS},
        "bands_by_task": by(candidates.tasks),
        "bands_by_source": by(candidates.sources),
        "instruct": {"n": int(instruct.sum()), "by_task": _counts(candidates.tasks[instruct])},
        "hard": {
            "n": int(hard.sum()),
            "by_task": _counts(candidates.tasks[hard]),
            "by_source": _counts(candidates.sources[hard]),
            "unsolved_share": float((found.band[hard] == "hard_unsolved").mean()) if hard.any() else 0.0,
        },
        "mean_pass_rate": {
            task: float(np.nanmean(found.rate[candidates.tasks == task]))
            for task in sorted(set(candidates.tasks.tolist()))
            if not np.isnan(found.rate[candidates.tasks == task]).all()
        },
        "truncated_share": int(found.truncated.sum()) / total if total else 0.0,
        "caption_medians": found.caption_medians,
        "caption_ties": found.caption_ties,
        "histogram": {
            task: histogram.histogram(found.rate[candidates.tasks == task], k)
            for task in sorted(set(candidates.tasks.tolist()))
        },
    }


def _counts(names: npt.NDArray[np.str_]) -> dict[str, int]:
    return {str(name): int(n) for name, n in zip(*np.unique(names, return_counts=True), strict=True)}

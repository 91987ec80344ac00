"""Benchmarks: their questions, images and scoring, and what papers report. The definitions are data.

`benchmarks/*.yaml` hold them, one file per task. A change that moves a score (split, question types, prompt) raises the
definition's `version`; reference rows come and go without one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.common.lenient_json import read_list
from geozero.corpus.sample import Sample, Split, TaskName, digest
from geozero.corpus.store import Corpus
from geozero.evaluation.evaluate import evaluate
from geozero.metrics.records import read_records
from geozero.tasks import TASKS

DEFINITIONS = Path(__file__).with_name("benchmarks")
LIST = "list"  # the name that lists them all
PERCENT = 100.0  # papers print shares in percent and CIDEr times a hundred


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Published(Section):
    """What a paper reports of one model."""

    model: str
    rules: Literal["official", "authors"]  # GeoZero's published script, or rules of the benchmark's or paper's authors
    source: str  # where the numbers stand
    scores: Annotated[dict[str, Annotated[float, Field(ge=0, le=1000)]], Field(min_length=1)]  # as printed
    edition: str  # version of the source: numbers are replaced
    date: Annotated[str, Field(pattern=r"^20\d\d-\d\d$")]  # year and month of that version
    question_type: str | None = None  # None: all of them
    note: str = ""


class Benchmark(Section):
    """One benchmark."""

    name: str
    version: Annotated[int, Field(ge=1)]
    title: str
    task: TaskName
    source: str | None  # a name of geozero/sources; None: no source of ours holds it, and `data` says where it is
    data: str = ""
    split: Split
    options: dict[str, str] = {}  # of the source, where its split depends on them
    question_types: tuple[str, ...] = ()  # those that papers report; empty: all
    prompt: str  # digest of the task's phrasings (`prompt_digest`): another phrasing is another version
    protocol: Literal["strict", "official"]  # of our own scores; reference rows say their own rules
    metrics: Annotated[tuple[str, ...], Field(min_length=1)]  # what papers report, in their order
    size: int | None = None  # samples of the whole official split, where it has one and its size is known
    references: tuple[Published, ...]  # empty: none that we could find and cite

    @model_validator(mode="after")
    def _known_metrics(self) -> Benchmark:
        if self.task not in TASKS:
            raise ValueError(f"unknown task {self.task}")
        if self.source is None and not self.data:
            raise ValueError("neither a source nor data")
        named = {*self.metrics, *(metric for row in self.references for metric in row.scores)}
        odd = sorted(named - set(TASKS[self.task].reported))
        if odd:
            raise ValueError(f"unknown metric {odd[0]} of {self.task}")
        return self


class ReferenceRow(NamedTuple):
    """One published number, under the rules of GeoZero's script or of the authors, never under our strict protocol."""

    benchmark: str
    version: int  # of the definition
    model: str  # as the source names it
    metric: str  # the strict protocol's name of it, or METEOR
    value: float  # in our units: shares 0-1, CIDEr as pycocoevalcap gives it
    published: float  # as printed
    question_type: str | None  # None: all of them
    rules: str
    source: str  # citation
    edition: str  # version of the source
    date: str  # of that version, YYYY-MM
    note: str  # a caveat


def prompt_digest(task: TaskName) -> str:
    """Eight digits that change with the task's phrasings."""
    return digest(json.dumps(TASKS[task].templates).encode())[:8]


@cache
def benchmarks() -> dict[str, Benchmark]:
    """All definitions by name, in the order of the files.

    Raises:
        InputError: a definition is not of the form; it is named.
    """
    found: dict[str, Benchmark] = {}
    for path in sorted(DEFINITIONS.glob("*.yaml")):
        for benchmark in read_definitions(path):
            if benchmark.name in found or benchmark.name == LIST:
                raise InputError(f"two benchmarks named {benchmark.name}", str(path), "rename one")
            found[benchmark.name] = benchmark
    return found


def read_definitions(path: Path) -> list[Benchmark]:
    """The benchmarks of one file.

    Raises:
        InputError: it is not YAML, or a definition is not of the form.
    """
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8"))["benchmarks"]
        return [Benchmark.model_validate(row) for row in rows]
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        name = fault["input"].get("name", "") if isinstance(fault["input"], dict) else ""
        raise InputError(f"benchmark {name} {place}: {fault['msg']}", str(path), "correct the definition") from None
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"no benchmark definitions: {error!r}"[:300], str(path), "correct the file") from None


def get(name: str) -> Benchmark:
    """The benchmark of this name.

    Raises:
        InputError: there is none.
    """
    if name not in benchmarks():
        raise InputError(f"unknown benchmark '{name}'", hint=f"{LIST}, or one of {', '.join(benchmarks())}")
    return benchmarks()[name]


def reference_rows(benchmark: Benchmark | str) -> list[ReferenceRow]:
    """The published numbers of a benchmark; empty where none could be found and cited.

    Raises:
        InputError: no such benchmark.
    """
    it = get(benchmark) if isinstance(benchmark, str) else benchmark
    rows = []
    for row in it.references:
        for metric, published in row.scores.items():
            score = metric, round(published / PERCENT, 10), published
            rows.append(
                ReferenceRow(
                    *(it.name, it.version, row.model, *score, row.question_type),
                    *(row.rules, row.source, row.edition, row.date, row.note),
                )
            )
    return rows


def samples(benchmark: Benchmark | str, corpus: Corpus) -> Iterator[Sample]:
    """The samples of a corpus that make the benchmark, in stored order.

    Raises:
        InputError: no such benchmark, or the corpus lacks its source, task, split or question types, or was not
            ingested with the options that the benchmark needs.
    """
    it = get(benchmark) if isinstance(benchmark, str) else benchmark
    place = str(corpus.path)
    counts = corpus.manifest.get("counts", [])
    if it.source is None:
        what = f"no corpus holds {it.name}, only an evaluation JSON of its questions: {it.data}"
        raise InputError(what, place, "use geozero infer and geozero evaluate --benchmark")
    own = [row for row in counts if row["source"] == it.source]
    if not own:
        held = ", ".join(sorted({str(row["source"]) for row in counts})) or "nothing"
        raise InputError(f"{it.name} needs {it.source}, the corpus holds {held}", place, f"ingest {it.source}")
    if not any(row["task"] == it.task and row["split"] == it.split for row in own):
        held = ", ".join(sorted({f"{row['task']} {row['split']}" for row in own}))
        what = f"{it.name} needs {it.task} {it.split} of {it.source}, the corpus holds {held}"
        raise InputError(what, place, f"ingest {it.source} with --split {it.split} or all")
    given = corpus.manifest.get("made_by", {}).get("options", {})
    for key, value in it.options.items():
        if given.get(key) != value:
            what = f"{it.name} needs {it.source} ingested with {key}={value}, this one says {given.get(key)}"
            raise InputError(what, place, "ingest it alone with that option")
    return _samples(it, corpus)


def _samples(it: Benchmark, corpus: Corpus) -> Iterator[Sample]:
    n = 0
    for sample in corpus.samples(it.split, it.task):
        if sample.source == it.source and (not it.question_types or sample.question_type in it.question_types):
            n += 1
            yield sample
    if not n:
        raise InputError(f"no question of type {', '.join(it.question_types)}", str(corpus.path), "look at it first")


def evaluate_benchmark(
    name: str, task: str, protocol: str, records: Path, out: Path | None = None, boxes: str = "norm1000", **options: Any
) -> dict[str, Any]:
    """`evaluate` with the benchmark's question types alone and, under `benchmark`, its version and reference rows.

    Records without a question type count as belonging to it. `options` go to `evaluate`.

    Raises:
        InputError: as `evaluate`; or no such benchmark, another task, or no record of its question types.
    """
    it = get(name)
    if task != it.task:
        raise InputError(f"{it.name} is {it.task}, not {task}", "--task", f"use --task {it.task}")
    types = read_records(records).question_types
    counted = [kind is None or not it.question_types or kind in it.question_types for kind in types]
    n_left_out, kinds = counted.count(False), ", ".join(it.question_types)
    if counted and n_left_out == len(counted):
        raise InputError(f"no record of type {kinds}", str(records), f"{it.name} has no other questions")
    kept: Path | list[Any] = records  # the file itself where all of it counts, so that its hash is in the result
    if n_left_out:
        kept = [row for row, own in zip(read_list(records, "records", ""), counted, strict=True) if own]
    result = evaluate(task, protocol, kept, None, boxes, **options)
    result["records"]["path"] = str(records)
    n = result["n"] + n_left_out
    if n_left_out:
        result["notes"].append(f"{n_left_out} records of other question types than {kinds} are left out")
    if it.size is not None and n != it.size:
        result["notes"].append(f"{n} records, the official split has {it.size}")
    result["benchmark"] = {
        "name": it.name,
        "version": it.version,
        "title": it.title,
        "metrics": list(it.metrics),
        "n_left_out": n_left_out,
        "references": [row._asdict() for row in reference_rows(it)],
    }
    if out is not None:
        write_json(out, result)
    return result


def listing() -> Iterator[str]:
    """One line per benchmark: name, version, task, source and split, question types, metrics, published scores."""
    for it in benchmarks().values():
        options = "".join(f", {key}={value}" for key, value in it.options.items())
        types = ", ".join(it.question_types) or "all"
        published = f"published scores: {len(reference_rows(it)) or 'none on record'}"
        where, metrics = f"{it.source or it.data} {it.split}{options}", ", ".join(it.metrics)
        yield "\t".join((it.name, f"v{it.version}", it.task, where, types, metrics, published, it.title))

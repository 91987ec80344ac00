"""A model answers corpora: greedy completions in the published record format, resumable shard by shard.

`python -m geozero.evaluation.inference JOB.json` runs one job in a process of its own, as the flows do: an engine
keeps its memory until its process ends.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geozero import process, tasks
from geozero.corpus import Corpus, write_json
from geozero.errors import InputError
from geozero.sample import Sample, Split, stable_unit
from geozero.tasks.boxes import Convention
from geozero.tasks.text import Mode, extract_answer

if TYPE_CHECKING:
    from geozero.engines import Completion

CHUNK = 256  # completions asked at a time; what a kill can cost


@dataclass(frozen=True)
class Job:
    """What to ask whom. `modes`: reading modes; `samples`: answers a question (1 is greedy, more are drawn at
    `temperature`); `limit`: questions a corpus, chosen by the stable hash of their ids; `engine`: keyword arguments
    of `geozero.engines.open_engine` beside the model."""

    model: str
    corpora: tuple[str, ...]
    out: str
    modes: tuple[Mode, ...]
    split: Split = "test"
    max_tokens: int = 512
    samples: int = 1
    temperature: float = 0.0
    seed: int = 0
    limit: int | None = None
    boxes: Convention = "norm1000"
    engine: dict[str, Any] | None = None


def records_path(out: Path | str, mode: str, source: str) -> Path:
    """Where the records of one reading mode and one source stand."""
    return Path(out) / mode / f"{source}.json"


def run(job: Job, progress: Callable[[str], None] = print) -> list[Path]:
    """Answer every corpus in every mode; what is already there with the same job is not asked again.

    Returns:
        The record files, a list of `{raw_output, pred, label, image_path, width, height, question_type, id, …}` each.

    Raises:
        InputError: a corpus or the model is missing.
    """
    out = Path(job.out)
    pending: list[tuple[Mode, str, Corpus, list[Sample], Path]] = []
    done: list[Path] = []
    for path in job.corpora:
        corpus = Corpus(path)
        chosen = choose(corpus.samples(job.split), job.limit)
        if not chosen:
            raise InputError(f"no {job.split} samples", path, "ingest that split, or name another corpus")
        for mode in job.modes:
            target = records_path(out, mode, chosen[0].source)
            done.append(target)
            if not _is_complete(target, job, corpus, mode):
                pending.append((mode, chosen[0].source, corpus, chosen, target))
    if not pending:
        progress("all records are there")
        return done

    from geozero.engines import Request, SamplingParams, open_engine

    engine = open_engine(model=job.model, **{"name": "auto", **(job.engine or {})})
    params = SamplingParams(n=job.samples, temperature=job.temperature, max_tokens=job.max_tokens, seed=job.seed)
    try:
        for mode, source, corpus, samples, target in pending:
            records: list[dict[str, Any]] = []
            for start in range(0, len(samples), CHUNK):
                chunk = samples[start : start + CHUNK]
                requests = [Request(s.id, tasks.messages(s, mode), corpus.image_bytes(s.image_id)) for s in chunk]
                for sample, completions in zip(chunk, engine.generate(requests, params), strict=True):
                    records += [record(sample, c, mode, job.boxes, i) for i, c in enumerate(completions)]
                progress(f"{source}, {mode}: {min(start + CHUNK, len(samples))} of {len(samples)}")
            target.parent.mkdir(parents=True, exist_ok=True)
            write_json(target, records)
            write_json(_stamp(target), _identity(job, corpus, mode))  # last: records without it are asked again
    finally:
        engine.close()
    return done


def choose(samples: Iterable[Sample], limit: int | None) -> list[Sample]:
    """All samples, or the `limit` whose ids come first by stable hash; stored order is kept."""
    listed = list(samples)
    if limit is None or len(listed) <= limit:
        return listed
    kept = {s.id for s in sorted(listed, key=lambda s: stable_unit(s.id, salt="limit"))[:limit]}
    return [s for s in listed if s.id in kept]


def record(sample: Sample, completion: Completion, mode: Mode, boxes: Convention, rollout: int) -> dict[str, Any]:
    """One record in the published format, with what strict scoring, the gate and the gallery need beside it."""
    label: str | list[str] = list(sample.references) if sample.task == "caption" else sample.answer
    return {
        "id": sample.id if rollout == 0 else f"{sample.id}/{rollout}",
        "sample": sample.id,
        "task": sample.task,
        "source": sample.source,
        "question": sample.question,
        "raw_output": completion.text,
        "pred": extract_answer(completion.text),
        "label": label,
        "image_path": sample.image_key,
        "image_id": sample.image_id,
        "width": sample.width,
        "height": sample.height,
        "question_type": sample.question_type,
        "reward": tasks.get(sample.task).reward(completion.text, sample, mode, boxes),
        "n_tokens": completion.n_tokens,
        "finish_reason": completion.finish_reason,
    }


def run_in_child(job: Job, log: Path, on_line: Callable[[str], None] | None = None) -> None:
    """`run` in a process of its own, whose memory ends with it.

    Raises:
        ChildFailed: it ended with an error; the message holds its last lines.
    """
    out = Path(job.out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "job.json", asdict(job))
    process.run([sys.executable, "-m", __name__, str(out / "job.json")], log=log, on_line=on_line)


def _stamp(target: Path) -> Path:
    return target.with_suffix(".done.json")


def _identity(job: Job, corpus: Corpus, mode: Mode) -> dict[str, Any]:
    kept = {k: v for k, v in asdict(job).items() if k not in ("corpora", "out", "modes")}
    return {**kept, "mode": mode, "corpus": corpus.digest}


def _is_complete(target: Path, job: Job, corpus: Corpus, mode: Mode) -> bool:
    stamp = _stamp(target)
    if not (stamp.is_file() and target.is_file()):
        return False
    wanted: dict[str, Any] = json.loads(json.dumps(_identity(job, corpus, mode)))
    return bool(json.loads(stamp.read_text()) == wanted)


def main(argv: Sequence[str]) -> None:
    """Run the job of a JSON file."""
    values = json.loads(Path(argv[0]).read_text())
    values["corpora"], values["modes"] = tuple(values["corpora"]), tuple(values["modes"])
    run(Job(**values))


if __name__ == "__main__":
    main(sys.argv[1:])

"""A model answers corpora: greedy completions in the published record format, resumable shard by shard.

`python -m geozero.inference.corpus_job JOB.json` runs one job in a process of its own, as the flows do: an engine
keeps its memory until its process ends.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geozero import tasks
from geozero.common import process, process_tags
from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.corpus.sample import Sample, Split, digest, stable_unit
from geozero.corpus.store import Corpus
from geozero.tasks.boxes import Convention
from geozero.tasks.text import OPEN_TAG, Mode, extract_answer

if TYPE_CHECKING:
    from geozero.engines import Completion

CHUNK = 256  # questions asked at a time, and how often progress is told
BAD_INPUT = 2  # exit code of a child whose last line says what is wrong

# How a question is asked: in a reading mode, or in tagged mode with the answer's tag already written, so that there is
# no room for a thought and the answer is forced at once.
PromptMode = Literal["direct", "tagged", "forced"]


@dataclass(frozen=True)
class CorpusJob:
    """What to ask whom. `modes`: reading modes; `samples`: answers a question (1 is greedy, more are drawn at
    `temperature`); `limit`: questions a corpus, chosen by the stable hash of their ids; `forced`: so many of them are
    also asked for an answer without a thought (if tagged mode is among the modes); `engine`: keyword arguments of
    `geozero.engines.open_engine` beside the model."""

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
    forced: int | None = None

    @property
    def ways(self) -> tuple[PromptMode, ...]:
        """How every corpus is asked."""
        return (*self.modes, "forced") if self.forced and "tagged" in self.modes else self.modes


def records_path(out: Path | str, mode: str, source: str) -> Path:
    """Where the records of one reading mode and one source stand."""
    return Path(out) / mode / f"{source}.json"


def run(job: CorpusJob, progress: Callable[[str], None] = print) -> list[Path]:
    """Answer every corpus in every mode; what is already there from the same model, questions and settings is not
    asked again.

    Args:
        progress: takes a line after each chunk; it counts the requests that failed (an image or prompt out of
            bounds): their answers are empty, and wrong.

    Returns:
        The record files, a list of `{raw_output, pred, label, image_path, width, height, question_type, id, …}` each.

    Raises:
        InputError: a corpus or the model is missing.
    """
    from geozero.engines import Request, SamplingParams, checkpoint, open_engine

    out, model = Path(job.out), checkpoint.content_hash(checkpoint.resolve(job.model))
    pending: list[tuple[PromptMode, Corpus, list[Sample], Path, dict[str, Any]]] = []
    done: list[Path] = []
    for path in job.corpora:
        corpus = Corpus(path)
        chosen = choose(corpus.samples(job.split), job.limit)
        if not chosen:
            raise InputError(f"no {job.split} samples", path, "ingest that split, or name another corpus")
        for way in job.ways:
            target = records_path(out, way, chosen[0].source)
            done.append(target)
            asked = choose(chosen, job.forced) if way == "forced" else chosen
            identity = _identity(job, model, corpus, way, asked)
            if not _is_complete(target, identity):
                pending.append((way, corpus, asked, target, identity))
    if not pending:
        progress("all records are there")
        return done
    engine = open_engine(model=job.model, **{"name": "auto", **(job.engine or {})})
    params = SamplingParams(n=job.samples, temperature=job.temperature, max_tokens=job.max_tokens, seed=job.seed)
    try:
        for way, corpus, samples, target, identity in pending:
            mode, prefix = reading(way)
            records: list[dict[str, Any]] = []
            failed: list[str] = []
            for start in range(0, len(samples), CHUNK):
                chunk = samples[start : start + CHUNK]
                requests = [
                    Request(s.id, tasks.messages(s, mode), corpus.image_bytes(s.image_id), prefix=prefix) for s in chunk
                ]
                for sample, completions in zip(chunk, engine.generate(requests, params), strict=True):
                    records += [record(sample, c, mode, job.boxes, i, prefix) for i, c in enumerate(completions)]
                    failed += [c.error or "no reason given" for c in completions if c.finish_reason == "error"]
                line = f"{samples[0].source}, {way}: {min(start + CHUNK, len(samples))} of {len(samples)}"
                progress(f"{line}, {len(failed)} failed, the first: {failed[0]}" if failed else line)
            target.parent.mkdir(parents=True, exist_ok=True)
            _stamp(target).unlink(missing_ok=True)  # an older job's must not vouch for these records
            write_json(target, records)
            write_json(_stamp(target), identity)  # last: records without it are asked again
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


def reading(way: PromptMode) -> tuple[Mode, str]:
    """The reading mode of a way of asking, and what the model's answer has to begin with."""
    return ("tagged", OPEN_TAG) if way == "forced" else (way, "")


def record(
    sample: Sample, completion: Completion, mode: Mode, boxes: Convention, rollout: int, prefix: str = ""
) -> dict[str, Any]:
    """One record in the published format, with what strict scoring, the gate and the gallery need beside it."""
    text = "" if completion.finish_reason == "error" else prefix + completion.text
    label: str | list[str] = list(sample.references) if sample.task == "caption" else sample.answer
    return {
        "id": sample.id if rollout == 0 else f"{sample.id}/{rollout}",
        "sample": sample.id,
        "task": sample.task,
        "source": sample.source,
        "question": sample.question,
        "raw_output": text,
        "pred": extract_answer(text),
        "label": label,
        "image_path": sample.image_key,
        "image_id": sample.image_id,
        "width": sample.width,
        "height": sample.height,
        "question_type": sample.question_type,
        "reward": tasks.get(sample.task).reward(text, sample, mode, boxes),
        "n_tokens": completion.n_tokens,
        "finish_reason": completion.finish_reason,
    }


def run_in_child(job: CorpusJob, log: Path, on_line: Callable[[str], None] | None = None) -> None:
    """`run` in a process of its own, whose memory ends with it.

    Raises:
        InputError: a corpus or the model is missing.
        ChildFailed: it ended with another error; the message holds its last lines.
    """
    out = Path(job.out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "job.json", asdict(job))
    try:
        process.run([sys.executable, "-m", __name__, str(out / "job.json")], log=log, on_line=on_line)
    except process.ChildFailed as failed:
        if failed.code == BAD_INPUT and failed.tail:
            raise InputError(failed.tail[-1]) from None
        raise


def _stamp(target: Path) -> Path:
    return target.with_suffix(".done.json")


def _identity(job: CorpusJob, model: str, corpus: Corpus, way: PromptMode, samples: Sequence[Sample]) -> dict[str, Any]:
    """What the records depend on: the model's bytes, not its path; the images; the prompts; the settings."""
    kept = {k: v for k, v in asdict(job).items() if k not in ("model", "corpora", "out", "modes", "forced")}
    mode, _ = reading(way)
    prompts = digest(json.dumps([(s.id, tasks.messages(s, mode)) for s in samples]).encode())
    return {**kept, "model": model, "mode": way, "corpus": corpus.digest, "prompts": prompts}


def _is_complete(target: Path, identity: Mapping[str, Any]) -> bool:
    stamp = _stamp(target)
    if not (stamp.is_file() and target.is_file()):
        return False
    try:
        found = json.loads(stamp.read_text())
    except ValueError:
        return False
    return bool(found == json.loads(json.dumps(identity)))


def main(argv: Sequence[str]) -> None:
    """Run the job of a JSON file; bad input ends in one line and exit code 2."""
    process_tags.end_with_owner()
    values = json.loads(Path(argv[0]).read_text())
    values["corpora"], values["modes"] = tuple(values["corpora"]), tuple(values["modes"])
    try:
        run(CorpusJob(**values))
    except InputError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(BAD_INPUT)


if __name__ == "__main__":
    main(sys.argv[1:])

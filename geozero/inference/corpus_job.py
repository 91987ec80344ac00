"""Answer corpora and write records in the published format: evaluation, and the preflight before RL.

Outputs are `OUT/<prompt mode>/<source>.json`, each with its answer log and, written last, a stamp `<source>.done.json`.
`python -m geozero.inference.corpus_job JOB.json` runs one job in a process of its own, as the flows do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from geozero import tasks
from geozero.common import process
from geozero.common.atomic import write_json
from geozero.common.child import job_main, run_job
from geozero.common.errors import InputError
from geozero.corpus.sample import Sample, Split, digest, stable_unit
from geozero.corpus.store import Corpus
from geozero.engines import Completion, SamplingParams
from geozero.inference.answer_log import AnswerLog, failure
from geozero.inference.loop import LazyEngine, Question, answer_many
from geozero.tasks.boxes import Convention
from geozero.tasks.text import OPEN_TAG, Mode, extract_answer, thought

# How a question is put: in a reading mode, or ("forced") in tagged mode with the answer's opening tag prefilled, so
# that the model answers without a thought, or ("swapped") with another sample's thought before the tag, or ("opened")
# with a beginning of its own for each sample.
JOB_MODULE = "geozero.inference.corpus_job"  # what a child process runs
PromptMode = Literal["direct", "tagged", "forced", "swapped", "opened"]


@dataclass(frozen=True)
class CorpusJob:
    """Which model answers what, and how."""

    model: str  # a checkpoint's directory, or a hub name in the local cache
    corpora: tuple[str, ...]
    out: str
    modes: tuple[Mode, ...]  # each gets all questions
    split: Split = "test"
    max_tokens: int = 512
    samples: int = 1  # answers per question
    temperature: float = 0.0  # 0 is greedy
    seed: int = 0
    limit: int | None = None  # questions per corpus, chosen by the stable hash of their ids; None: all
    boxes: Convention = "norm1000"  # the model's coordinate convention, for rewards
    engine: dict[str, Any] | None = None  # keyword arguments of `open_engine` beside the model
    shard: str = "0/1"  # i/n: answer the i-th part of the questions alone, and write no records
    prefilled: int | None = None  # questions per corpus that are asked in prompt mode "forced", too, if also in tagged
    swapped: int | None = None  # the same of prompt mode "swapped"
    opened: str | None = None  # a JSON file: sample → beginning; those are asked in prompt mode "opened", too

    @property
    def prompt_modes(self) -> tuple[PromptMode, ...]:
        opened = None if self.opened is None else 1
        numbers: dict[PromptMode, int | None] = {"forced": self.prefilled, "swapped": self.swapped, "opened": opened}
        return (*self.modes, *(mode for mode, n in numbers.items() if n and "tagged" in self.modes))


def records_path(out: Path | str, mode: str, source: str) -> Path:
    """Where the records of one prompt mode and one source lie."""
    return Path(out) / mode / f"{source}.json"


def run(job: CorpusJob, on_line: Callable[[str], None] = print) -> list[Path]:
    """Answer every corpus in every prompt mode; what the answer logs hold is not generated again.

    Returns:
        The record files, a list of `{raw_output, pred, label, image_path, width, height, question_type, id, …}` each.

    Raises:
        InputError: a corpus or the model is missing, or another process answers the same.
    """
    params = SamplingParams(n=job.samples, temperature=job.temperature, max_tokens=job.max_tokens, seed=job.seed)
    with LazyEngine(job.model, params, **(job.engine or {})) as model:
        outputs = [output for path in job.corpora for output in _outputs(job, Corpus(path))]
        unfinished = [output for output in outputs if not output.is_finished(model)]
        for output in unfinished:
            if job.shard == CorpusJob.shard:
                output.answer(model, on_line)
            elif output.prompt_mode != "swapped":  # whose prompts need all tagged answers
                output.answer_part(model, on_line)
        if not unfinished:
            on_line("all records are there")
    return [output.path for output in outputs]


def run_in_child(job: CorpusJob, log: Path, on_line: Callable[[str], None] | None = None) -> None:
    """`run` in a process of its own; where several GPUs are visible, first in one for each that answers its part.

    Raises:
        InputError, ChildFailed: as `run_job`; what the other processes answered stays.
    """
    out, remote = Path(job.out), (job.engine or {}).get("name") == "server" and (job.engine or {}).get("urls")
    gpus = [] if remote else process.visible_gpus()

    def answer(number: int) -> None:
        part, name = replace(job, shard=f"{number}/{len(gpus)}"), f"job-{number}of{len(gpus)}"
        part_log = log.with_name(f"{log.name}-{number}of{len(gpus)}")
        env = {process.VISIBLE_GPUS: gpus[number]}
        run_job(JOB_MODULE, part, out / f"{name}.json", part_log, on_line, env=env)

    if len(gpus) > 1:
        with ThreadPoolExecutor(len(gpus)) as pool:
            list(pool.map(answer, range(len(gpus))))
    run_job(JOB_MODULE, job, out / "job.json", log, on_line)


def choose(samples: Iterable[Sample], limit: int | None) -> list[Sample]:
    """All samples, or the `limit` whose ids come first by stable hash; stored order is kept."""
    listed = list(samples)
    if limit is None or len(listed) <= limit:
        return listed
    kept = {s.id for s in sorted(listed, key=lambda s: stable_unit(s.id, salt="limit"))[:limit]}
    return [s for s in listed if s.id in kept]


def _outputs(job: CorpusJob, corpus: Corpus) -> list[_Output]:
    samples = choose(corpus.samples(job.split), job.limit)
    if not samples:
        raise InputError(f"no {job.split} samples", str(corpus.path), "ingest that split, or name another corpus")
    limits = {"forced": job.prefilled, "swapped": job.swapped}
    chosen = {mode: choose(samples, limits.get(mode)) for mode in job.prompt_modes}
    if job.opened is not None:
        beginnings = json.loads(Path(job.opened).read_bytes())
        chosen["opened"] = [sample for sample in samples if sample.id in beginnings]
    return [_Output(job, corpus, mode, own) for mode, own in chosen.items() if own]


class _Output:
    """The records of one corpus in one prompt mode."""

    def __init__(self, job: CorpusJob, corpus: Corpus, prompt_mode: PromptMode, samples: list[Sample]) -> None:
        self.job, self.corpus, self.prompt_mode, self.samples = job, corpus, prompt_mode, samples
        self.mode: Mode = "direct" if prompt_mode == "direct" else "tagged"
        self.source = samples[0].source
        self.path = records_path(job.out, prompt_mode, self.source)
        self.stamp = self.path.with_suffix(".done.json")

    def answer_part(self, model: LazyEngine, on_line: Callable[[str], None]) -> None:
        """Answer what is missing of this process's part of the questions."""
        number, of = map(int, self.job.shard.split("/"))
        questions = [question for question in self._questions() if int(stable_unit(question.id, "part") * of) == number]
        with AnswerLog(self.path, model.identity, part=f"{number}of{of}") as log:
            label = f"{self.source}, {self.prompt_mode}, {number}/{of}"
            answer_many(model, questions, lambda q: self.corpus.image_bytes(q.image), log, label=label, on_line=on_line)

    def _questions(self) -> list[Question]:
        return [
            Question(s.id, tasks.messages(s, self.mode), s.image_id, self.prefixes.get(s.id, "")) for s in self.samples
        ]

    @cached_property
    def prefixes(self) -> dict[str, str]:
        """What the answer to each sample has to begin with: the opening tag, behind the tagged thought about the next
        sample of its task by stable hash where thoughts are swapped; or what the job's file says."""
        if self.prompt_mode == "forced":
            return {s.id: OPEN_TAG for s in self.samples}
        if self.prompt_mode == "opened":
            beginnings: dict[str, str] = json.loads(Path(str(self.job.opened)).read_bytes())
            return beginnings
        if self.prompt_mode != "swapped":
            return {}
        rows = json.loads(records_path(self.job.out, "tagged", self.source).read_bytes())
        thoughts = {r["sample"]: thought(r["raw_output"]) for r in reversed(rows) if OPEN_TAG in r["raw_output"]}
        found = {}
        for task in sorted({s.task for s in self.samples}):  # in one order: the stamp of the records holds their hash
            own = sorted(
                (s.id for s in self.samples if s.task == task), key=lambda name: stable_unit(name, salt="swap")
            )
            for name, other in zip(own, [*own[1:], own[0]], strict=True):
                found[name] = f"{thoughts[other]} {OPEN_TAG}" if thoughts.get(other) else OPEN_TAG
        return found

    def answer(self, model: LazyEngine, on_line: Callable[[str], None]) -> None:
        """Answer what is missing, then write the records and, last, the stamp."""
        questions = self._questions()
        with AnswerLog(self.path, model.identity) as log:
            label = f"{self.source}, {self.prompt_mode}"
            answers = answer_many(
                model, questions, lambda q: self.corpus.image_bytes(q.image), log, label=label, on_line=on_line
            )
            self.stamp.unlink(missing_ok=True)  # an older one must not vouch for these records
            answered = zip(self.samples, answers, strict=True)
            write_json(self.path, [record for sample, found in answered for record in self._records(sample, found)])
            write_json(self.stamp, self._identity(model))

    def is_finished(self, model: LazyEngine) -> bool:
        """Whether the records are there and made from exactly these questions, labels, images and settings."""
        try:
            return self.path.is_file() and bool(json.loads(self.stamp.read_bytes()) == self._identity(model))
        except (OSError, ValueError):
            return False

    def _identity(self, model: LazyEngine) -> dict[str, Any]:
        """All that the records depend on; stamps of earlier versions hold the same."""
        left_out = ("model", "corpora", "out", "modes", "prefilled", "swapped", "opened", "shard")
        prompts = json.dumps([(s.id, tasks.messages(s, self.mode)) for s in self.samples])
        identity = {name: value for name, value in asdict(self.job).items() if name not in left_out} | {
            "model": model.identity["model"],
            "mode": self.prompt_mode,
            "corpus": self.corpus.digest,
            "prompts": digest(prompts.encode()),
        }
        if self.prompt_mode in ("swapped", "opened"):
            identity["prefixes"] = digest(json.dumps(self.prefixes).encode())
        return dict(json.loads(json.dumps(identity)))

    def _records(self, sample: Sample, completions: list[Completion]) -> Iterator[dict[str, Any]]:
        """In the published format, with what strict scoring, the preflight and the gallery need beside it."""
        task = tasks.get(sample.task)
        for rollout, completion in enumerate(completions):
            reason = failure([completion])
            text = "" if reason else self.prefixes.get(sample.id, "") + completion.text
            yield {
                "id": sample.id if rollout == 0 else f"{sample.id}/{rollout}",
                "sample": sample.id,
                "task": sample.task,
                "source": sample.source,
                "question": sample.question,
                "raw_output": text,
                "pred": extract_answer(text),
                "label": task.label(sample.answer, sample.references),
                "image_path": sample.image_key,
                "image_id": sample.image_id,
                "width": sample.width,
                "height": sample.height,
                "question_type": sample.question_type,
                "reward": task.reward(text, sample, self.mode, self.job.boxes),
                "n_tokens": completion.n_tokens,
                "finish_reason": completion.finish_reason,
            } | ({"error": reason} if reason else {})


def main(values: dict[str, Any]) -> None:
    """Run the job of a child process."""
    run(CorpusJob(**values | {"corpora": tuple(values["corpora"]), "modes": tuple(values["modes"])}))


if __name__ == "__main__":
    job_main(main, sys.argv[1])

"""Replay [ours]: the base model's own descriptions, trained on again beside SFT's direct answers to keep the format.

The base answers open questions about training images in tagged mode, never one that is trained on; what is well formed
is kept. `python -m geozero.training.replay JOB.json` samples in a process of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from geozero.common.atomic import write_json
from geozero.common.child import job_main, run_job
from geozero.common.errors import InputError
from geozero.common.redaction import redacted
from geozero.corpus.sample import digest, stable_choice, stable_unit
from geozero.corpus.store import Corpus
from geozero.engines import SamplingParams, checkpoint
from geozero.inference.answer_log import AnswerLog
from geozero.inference.loop import LazyEngine, Question, answer_many
from geozero.params import Params
from geozero.tasks import prompt
from geozero.tasks.text import is_well_formed
from geozero.training.arguments import check_hardware, check_masters
from geozero.training.dataset import Replay, image_uri
from geozero.training.launcher import multi_node

QUESTIONS = (
    "What do you see?",
    "What is in this picture?",
    "Which kind of place is this?",
    "Tell me what stands out here.",
    "Sum the picture up.",
    "Is the place empty?",
    "Is anything moving here?",
    "Are there many things or few?",
    "How many things can be counted?",
    "Do you see more on the left than on the right?",
    "Where is the most striking thing?",
    "Is there something unusual?",
    # Lists to choose from and wishes for a short answer: where SFT sees those, it unlearns to think first.
    "Which of these words describes the place: busy, quiet, empty, crowded, orderly, scattered?",
    "Choose one of these for the light: bright, dull, hazy, dark.",
    "What covers most of it: water, trees, fields, roofs, asphalt, sand? Name one of these.",
    "Which of the following would you call the picture: sharp, blurred, noisy, faint?",
    "Is there a lot to see? Answer with one word.",
    "Is it a tidy or an untidy place? A single word, please.",
    "How many colours stand out? Give a short answer.",
    "Are there more bright things than dark ones? One word or a short phrase.",
)
TEMPERATURE = 1.0  # the base's own spread, not its single best sentence
SPARE = 1.25  # times the completions needed: some are not well formed
LOG = "replay.log"


def collect(
    params: Params, base: Path, corpus: Path, runs: Path, on_line: Callable[[str], None] | None = None
) -> list[Replay]:
    """As many replayed completions as `params.sft.replay_share` needs; reused where `runs` holds them already.

    Raises:
        InputError: there is no training image, or the base model writes no well-formed completion; this machine
            cannot train so; on another node, no sign of node 0, which samples for all.
        ChildFailed: the sampling process ended with an error.
    """
    sft, source = params.sft, Corpus(corpus)
    required = max(1, round(sft.steps * sft.batch_size * sft.replay_share))
    if not any(row["split"] == "train" for row in source.manifest["counts"]):
        raise InputError("no training image to describe", str(corpus), "select GeoZero-Instruct again")
    model = checkpoint.content_hash(checkpoint.resolve(base))
    limits = params.a2grpo.max_completion_tokens, params.model.max_pixels
    identity = [model, source.digest, required, params.seed, *limits, QUESTIONS]
    identity += [] if params.model.min_pixels is None else [params.model.min_pixels]
    out = runs / f"replay-{digest(json.dumps(identity).encode())[:12]}" / "replay.json"
    node = multi_node.this_node(params.hardware)
    check_hardware(params.hardware)  # here, not after minutes of sampling for a training that could not start
    if not node.leads:  # sampled twice, it could differ, and with it the stage's fingerprint
        multi_node.wait_for_leader(out, out.with_name(LOG), 60 * params.hardware.stall_minutes)
    if not out.is_file():
        check_masters(params, "sft")
        job = {
            "params": redacted(params.model_dump()),
            "base": str(base),
            "corpus": str(corpus),
            "n": required,
            "out": str(out),
        }
        run_job(__name__, job, out.with_name("job.json"), out.with_name(LOG), on_line)
    # the image's name holds the corpus's path; the same corpus may lie elsewhere by now
    rows = json.loads(out.read_text())
    found = [Replay(r["messages"], image_uri(corpus, r["image"].rpartition("#")[2]), r["text"]) for r in rows]
    if not found:
        raise InputError("the base model wrote no well-formed description", str(base), "set sft.replay_share to 0")
    return found


def main(job: dict[str, Any]) -> None:
    """The child process: have the base describe training images, keep the first `n` well-formed completions.

    The answer log lies in the directory of the runs: another corpus of the same images samples nothing again.
    """
    params, corpus, out = Params.model_validate(job["params"]), Path(job["corpus"]), Path(job["out"])
    source = Corpus(corpus)
    images = sorted({s.image_id for s in source.samples("train")}, key=lambda i: stable_unit(i, salt="replay"))
    names = [(images[i % len(images)], i // len(images)) for i in range(round(job["n"] * SPARE))]
    questions = [Question(f"{image}/{again}", messages(f"{image}/{again}"), image) for image, again in names]
    sampling = SamplingParams(1, TEMPERATURE, max_tokens=params.a2grpo.max_completion_tokens, seed=params.seed)
    with (
        LazyEngine(job["base"], sampling, **params.engine_options) as model,
        AnswerLog(out.parent.with_name("replay"), model.identity, wait=True) as log,
    ):
        answers = answer_many(model, questions, lambda q: source.image_bytes(q.image), log, label="replay")
    kept = [
        Replay(question.messages, image_uri(corpus, question.image), completion.text)
        for question, (completion,) in zip(questions, answers, strict=True)
        if is_well_formed(completion.text)
    ]
    print(f"replay: {len(kept)} of {len(questions)} completions are well formed")
    write_json(out, [asdict(r) for r in kept[: job["n"]]])


def messages(key: str) -> list[dict[str, str]]:
    """A request for a description in tagged mode, its wording chosen by the stable hash of `key`."""
    return prompt(stable_choice(QUESTIONS, key, salt="replay"), "tagged")


if __name__ == "__main__":
    job_main(main, sys.argv[1])

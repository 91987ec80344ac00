"""Replay [ours]: the base model's own descriptions, taught again beside SFT's direct answers so that its format stays.

The base is asked open questions about training images in tagged mode, never one that is trained on; what it writes
well formed is kept. `python -m geozero.training.replay JOB.json` samples in a process of its own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from geozero.common import process
from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.corpus.sample import digest, stable_choice, stable_unit
from geozero.corpus.store import Corpus
from geozero.engines import checkpoint
from geozero.params import Params
from geozero.tasks import SYSTEM_PROMPT
from geozero.tasks.text import is_well_formed
from geozero.training.arguments import check_hardware
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
SPARE = 1.25  # asked for more than needed: some completions are not well formed
CHUNK = 256
LOG = "replay.log"


def collect(
    params: Params, base: Path, corpus: Path, runs: Path, on_line: Callable[[str], None] | None = None
) -> list[Replay]:
    """As many replayed completions as `params.sft.replay_share` needs; found under `runs` where they are already.

    Raises:
        InputError: there is no training image, or the base model writes no well-formed completion; this machine
            cannot train so; on another node, no sign of node 0, which samples for all.
        ChildFailed: the sampling process ended with an error.
    """
    share, sft = params.sft.replay_share, params.sft
    source, wanted = Corpus(corpus), max(1, round(sft.steps * sft.batch_size * share))
    if not any(row["split"] == "train" for row in source.manifest["counts"]):
        raise InputError("no training image to describe", str(corpus), "select GeoZero-Instruct again")
    identity = [
        checkpoint.content_hash(checkpoint.resolve(base)),
        source.digest,
        wanted,
        params.seed,
        params.a2grpo.max_completion_tokens,
        params.model.max_pixels,
        QUESTIONS,
    ]
    out = runs / f"replay-{digest(json.dumps(identity).encode())[:12]}" / "replay.json"
    node = multi_node.this_node(params.hardware)
    check_hardware(params.hardware)  # here, not after minutes of sampling for a training that could not start
    if not node.leads:  # sampled twice, it could differ, and with it the stage's fingerprint
        multi_node.wait_for_leader(out, out.with_name(LOG), 60 * params.hardware.stall_minutes)
    if not out.is_file():
        job = {"params": params.model_dump(), "base": str(base), "corpus": str(corpus), "n": wanted, "out": str(out)}
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out.with_name("job.json"), job)
        process.run(
            [sys.executable, "-m", __name__, str(out.with_name("job.json"))],
            log=out.with_name(LOG),
            on_line=on_line,
        )
    rows = json.loads(out.read_text())
    # the image's name holds the corpus's path; the same corpus may stand elsewhere by now
    found = [Replay(r["messages"], image_uri(corpus, r["image"].rpartition("#")[2]), r["text"]) for r in rows]
    if not found:
        raise InputError("the base model wrote no well-formed description", str(base), "set sft.replay_share to 0")
    return found


def sample(params: Params, base: str, corpus: Path, n: int, out: Path) -> None:
    """Ask the base about `n` training images and write what is well formed, at most `n`."""
    from geozero.engines import Request, SamplingParams, open_engine

    source, model = Corpus(corpus), params.model
    images = sorted({s.image_id for s in source.samples("train")}, key=lambda i: stable_unit(i, salt="replay"))
    asked = [(images[i % len(images)], i // len(images)) for i in range(round(n * SPARE))]
    engine = open_engine(
        params.sampling.engine,
        base,
        dtype=model.dtype,
        max_pixels=model.max_pixels,
        max_length=model.max_length,
        template=model.template,
        model_type=model.model_type,
        memory=params.sampling.memory,
    )
    settings = SamplingParams(1, TEMPERATURE, max_tokens=params.a2grpo.max_completion_tokens, seed=params.seed)
    kept: list[Replay] = []
    try:
        for start in range(0, len(asked), CHUNK):
            chunk = asked[start : start + CHUNK]
            turns = [messages(f"{image}/{again}") for image, again in chunk]
            requests = [
                Request(f"{image}/{again}", turn, source.image_bytes(image))
                for (image, again), turn in zip(chunk, turns, strict=True)
            ]
            for (image, _), turn, answers in zip(chunk, turns, engine.generate(requests, settings), strict=True):
                if is_well_formed(answers[0].text):
                    kept.append(Replay(turn, image_uri(corpus, image), answers[0].text))
            print(f"replay: {len(kept)} well formed of {start + len(chunk)} asked", flush=True)
    finally:
        engine.close()
    write_json(out, [asdict(r) for r in kept[:n]])


def messages(key: str) -> list[dict[str, str]]:
    """A request for a description in tagged mode, its wording chosen by the stable hash of `key`."""
    question = stable_choice(QUESTIONS, key, salt="replay")
    return [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": f"<image>{question}"}]


def main(argv: Sequence[str]) -> None:
    """Run the job of a JSON file."""
    job = json.loads(Path(argv[0]).read_text())
    sample(Params.model_validate(job["params"]), job["base"], Path(job["corpus"]), job["n"], Path(job["out"]))


if __name__ == "__main__":
    main(sys.argv[1:])

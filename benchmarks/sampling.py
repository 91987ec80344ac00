"""Time sampling beside the bare engine and the published script's way: `python -m benchmarks.sampling [--samples N]`.

Three ways to the same number of completions about the same questions and images, each in a process of its own,
loading left out:
- `bare`: one call of vLLM's own `LLM.chat` over all requests, n completions each, no seeds, nothing kept;
- `ours`: `geozero.difficulty.sampling.sample` through the vLLM engine: seeded, chunk by chunk, rewarded and stored;
- `generate`: transformers' `generate` in batches of 4 rows, as the published script does it.
Beside wall time stands CPU time, which a busy machine does not blur (one thread each).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geozero import engines, tasks
from geozero.corpus.sample import Sample
from geozero.corpus.store import Corpus
from geozero.difficulty.answer_store import AnswerWriter
from geozero.engines.base import Answered, Completion, Engine, EngineOptions, Request, SamplingParams

WAYS = ("bare", "ours", "generate")
GENERATE_ROWS = 4  # the published script's batch
LIMITS: dict[str, Any] = {"max_pixels": 16384, "max_length": 512, "dtype": "float32"}  # the profile cpu-toy's
WARM_UP = 8  # requests that are not timed


def chosen(corpus: Path, n: int) -> list[Sample]:
    """The samples that `sample --limit n` takes, in the corpus's order."""
    from geozero.difficulty.work_list import build_work_list

    wanted = set(build_work_list(Corpus(corpus), 1, 0, 1, n, None)[0].ids.to_pylist())
    return [s for s in Corpus(corpus).samples() if s.id in wanted]


@contextmanager
def timed(found: dict[str, float]) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    found |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def bare(corpus: Path, model: Path, n: int, k: int, max_tokens: int) -> dict[str, float]:
    """One call of `LLM.chat`."""
    from geozero.engines.vllm_inprocess import VllmEngine

    engine = VllmEngine(model, **LIMITS)  # the same settings; only its LLM object is used
    from vllm import SamplingParams as VllmParams

    llm, found = engine._llm, dict[str, float]()
    data = Corpus(corpus)
    conversations = []
    for s in chosen(corpus, n):
        prompt = engine.prompter.prepare(Request(s.id, tasks.messages(s, "direct"), data.image_bytes(s.image_id)))
        text = tasks.messages(s, "direct")[-1]["content"].removeprefix("<image>")
        parts = [{"type": "image_pil", "image_pil": prompt.image}, {"type": "text", "text": text}]
        conversations.append([{"role": "user", "content": parts}])
    params = VllmParams(
        n=k, temperature=1.0, max_tokens=max_tokens, stop_token_ids=list(engine.prompter.vocabulary.end)
    )
    llm.chat(conversations[:WARM_UP], params, use_tqdm=False)
    llm.llm_engine.reset_prefix_cache()
    with timed(found):
        outputs = llm.chat(conversations, params, use_tqdm=False)
    tokens = sum(len(o.token_ids) for output in outputs for o in output.outputs)
    return found | {"completions": sum(len(o.outputs) for o in outputs), "tokens": tokens}


class Watched:
    """An engine whose first call is preceded by an untimed one."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name, self.reason = engine, engine.name, engine.reason
        self.found: dict[str, float] = {"inside": 0.0}
        self.started = (0.0, 0.0)

    def submit(self, requests: Sequence[Request], params: SamplingParams) -> None:
        if not self.started[0]:
            self.engine.generate(requests[:WARM_UP], params)
            llm: Any = self.engine
            llm._llm.llm_engine.reset_prefix_cache()
            self.started = time.perf_counter(), time.process_time()
        start = time.process_time()
        self.engine.submit(requests, params)
        self.found["inside"] += time.process_time() - start

    def collect(self, at_least: int = 1) -> list[Answered]:
        start = time.process_time()
        answers = self.engine.collect(at_least)
        self.found["inside"] += time.process_time() - start
        return answers

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        return self.engine.generate(requests, params)

    def describe(self) -> dict[str, Any]:
        return self.engine.describe()

    def close(self) -> None:
        self.found |= {
            "wall": time.perf_counter() - self.started[0],
            "cpu": time.process_time() - self.started[1],
        }
        self.engine.close()


def ours(corpus: Path, model: Path, n: int, k: int, max_tokens: int, chunk: int) -> dict[str, float]:
    """`sample` with a real store; `write` is the CPU time of writing chunks."""
    from geozero.difficulty.sampling import sample
    from geozero.difficulty.settings import SamplingSettings

    opened: list[Watched] = []
    written = [0.0]
    write = AnswerWriter.write

    def timed_write(self: AnswerWriter, rows: Sequence[dict[str, Any]]) -> Path:
        start = time.process_time()
        path = write(self, rows)
        written[0] += time.process_time() - start
        return path

    def open_engine(name: str, path: Path, **options: Any) -> Engine:
        for supervision in ("timeout", "restarts", "recycle"):
            options.pop(supervision)
        opened.append(Watched(engines.open_engine(name, path, **options)))
        return opened[-1]

    AnswerWriter.write = timed_write  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as store:
        settings = SamplingSettings(engine="vllm", k=k, max_tokens=max_tokens, chunk=chunk, **LIMITS)
        done = sample(corpus, [model], Path(store), settings, limit=n, open_engine=open_engine)
    return opened[0].found | {"completions": done.n_new, "tokens": done.tokens, "write": written[0]}


def generate(corpus: Path, model: Path, n: int, k: int, max_tokens: int) -> dict[str, float]:
    """Batches of 4 rows through transformers."""
    from geozero.common import process

    process.prepare()
    import torch
    from transformers import AutoModelForImageTextToText

    from geozero.engines.prompts import Prompter

    prompter, data = Prompter(model, EngineOptions(**LIMITS)), Corpus(corpus)
    network = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa").eval()
    samples = [s for s in chosen(corpus, n) for _ in range(k)]
    prompter.tokenizer.padding_side = "left"

    def answer(batch: Sequence[Sample]) -> int:
        prompts = [
            prompter.prepare(Request(s.id, tasks.messages(s, "direct"), data.image_bytes(s.image_id))) for s in batch
        ]
        inputs = prompter.processor(
            text=[p.text for p in prompts], images=[p.image for p in prompts], padding=True, return_tensors="pt"
        )
        length = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            rows = network.generate(
                **inputs,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=max_tokens,
                eos_token_id=list(prompter.vocabulary.end),
                pad_token_id=prompter.tokenizer.pad_token_id,
            )
        texts = prompter.tokenizer.batch_decode(rows[:, length:], skip_special_tokens=True)
        return sum(len(prompter.tokenizer(text)["input_ids"]) for text in texts)

    answer(samples[:GENERATE_ROWS])
    found, tokens = dict[str, float](), 0
    with timed(found):
        for start in range(0, len(samples), GENERATE_ROWS):
            tokens += answer(samples[start : start + GENERATE_ROWS])
    return found | {"completions": len(samples), "tokens": tokens}


def main() -> None:
    """Run each way in a child and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=Path("data/geozero-raw"))
    parser.add_argument("--model", type=Path, default=Path("models/tiny-qwen3-vl"))
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=40)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    given, _ = parser.parse_known_args()
    arguments = (given.corpus, given.model, given.samples, given.k, given.max_tokens)
    if given.way:
        run = {"bare": bare, "generate": generate}
        result = ours(*arguments, given.chunk) if given.way == "ours" else run[given.way](*arguments)
        print(json.dumps(result))
        return
    if not (given.corpus / "manifest.json").is_file():
        print(f"no corpus at {given.corpus}: nothing to measure (run `make demo` first)")
        return
    found: dict[str, dict[str, float]] = {}
    for way in WAYS:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.sampling", *sys.argv[1:], "--way", way], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{way}: {done.stderr.strip().splitlines()[-1]}")
        found[way] = json.loads(done.stdout.splitlines()[-1])
        row = found[way]
        print(
            f"{way:9s} {row['completions']:6.0f} completions, {row['tokens'] / row['completions']:.1f} tokens each: "
            f"{row['completions'] / row['wall']:7.1f} a second, {row['completions'] / row['cpu']:7.1f} a CPU second",
            flush=True,
        )
    for peer, goal in (("bare", 0.9), ("generate", 1.3)):
        ratios = [
            found["ours"]["completions"] / found["ours"][clock] * found[peer][clock] / found[peer]["completions"]
            for clock in ("cpu", "wall")
        ]
        print(f"ours / {peer}: {ratios[0]:.2f} by CPU, {ratios[1]:.2f} by wall time; goal {goal}")
    row = found["ours"]
    outside = 1 - row["inside"] / row["cpu"]
    print(f"store: {row['write'] / row['cpu']:.1%} of the CPU time, with rewards and images {outside:.1%}; goal 3.0%")


if __name__ == "__main__":
    main()

"""A small corpus, model directories without a model, and an engine that answers by rule; for the difficulty tests."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from weights import write_weights

from geozero.corpus.images import store as stored_image
from geozero.corpus.sample import Sample
from geozero.corpus.store import CorpusWriter
from geozero.difficulty import dry_run, sampling
from geozero.difficulty.settings import SamplingSettings
from geozero.engines.base import ByBatch, Completion, Request, SamplingParams, first_seed

CLASSES = ("farmland", "forest", "river", "port")


OF_THE_CALL = ("shard", "limit", "retry", "progress", "open_engine")


def sample(*where: Any, **options: Any) -> sampling.Summary:
    """`sampling.sample`, the settings as keywords."""
    call = {name: options.pop(name) for name in OF_THE_CALL if name in options}
    return sampling.sample(*where, SamplingSettings(**options), **call)


def plan(*where: Any, **options: Any) -> dry_run.SamplingPlan:
    """`planning.plan`, the settings as keywords."""
    call = {name: options.pop(name) for name in OF_THE_CALL if name in options}
    return dry_run.plan_sampling(*where, SamplingSettings(**options), **call)


def make_corpus(out: Path, n: int = 24, split: str = "train", tag: str = "") -> Path:
    """`n` samples of each task over n images; two sources for scenes and questions."""
    with CorpusWriter(out, {"made_by": "test"}) as writer:
        for i in range(n):
            buffer = io.BytesIO()
            Image.new("RGB", (40, 40), (i * 9 % 256, i * 5 % 256, len(tag))).save(buffer, "PNG")
            image = stored_image(buffer.getvalue())
            key = f"set{tag}/{i % 3}/{i}"
            writer.add_image(image, key)
            common: dict[str, Any] = {
                "split": split,
                "image_id": image.image_id,
                "image_key": key,
                "width": 40,
                "height": 40,
            }
            made = [
                Sample(
                    task="scene_cls",
                    id=f"{tag}s{i:03d}",
                    source=f"scenes{i % 2}",
                    question="Which?",
                    answer=CLASSES[i % 4],
                    classes=CLASSES,
                    **common,
                ),
                Sample(task="vqa", id=f"{tag}q{i:03d}", source="questions", question="Ship?", answer="yes", **common),
                Sample(
                    task="caption",
                    id=f"{tag}c{i:03d}",
                    source="captions",
                    question="Say.",
                    answer="a b c",
                    references=("many green trees stand in a forest", "a forest with many green trees"),
                    **common,
                ),
                Sample(
                    task="grounding",
                    id=f"{tag}g{i:03d}",
                    source="boxes",
                    question="Where?",
                    answer="[10, 10, 30, 30]",
                    box=(10.0, 10.0, 30.0, 30.0),
                    **common,
                ),
            ]
            for sample in made:
                assert writer.add(sample.validate())
    return out


def make_model(path: Path, weights: bytes = b"one") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
    write_weights(path / "model.safetensors", weights)
    return path


class FakeEngine(ByBatch):
    """Answers by `rule(request, seed, rollout-in-call) -> text`; counts what it was asked."""

    name, reason = "fake", "a test"

    def __init__(self, path: Path, rule: Callable[[Request, int], str], seconds: float = 0.0) -> None:
        self.path, self.rule, self.seconds = path, rule, seconds
        self.asked: list[tuple[str, int]] = []
        self.closed = False

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        time.sleep(self.seconds)
        answers = []
        for request in requests:
            assert request.image and request.messages[-1]["content"].startswith("<image>")
            row = []
            for i in range(params.n):
                seed = first_seed(request, params) + i
                self.asked.append((request.id, seed))
                text = self.rule(request, seed)
                if text == "!":
                    row.append(Completion("", "error", 0, None, "image"))
                else:
                    row.append(Completion(text, "length" if text.endswith("…") else "stop", len(text.split()), seed))
            answers.append(row)
        return answers

    def describe(self) -> dict[str, Any]:
        return {"engine": "fake", "model": str(self.path)}

    def close(self) -> None:
        self.closed = True


class Opener:
    """Stands in for `engines.open_engine`; remembers the engines it opened."""

    def __init__(self, rule: Callable[[Request, int], str], seconds: float = 0.0) -> None:
        self.rule, self.seconds = rule, seconds
        self.opened: list[FakeEngine] = []

    def __call__(self, name: str, model: Path, **_: Any) -> FakeEngine:
        engine = FakeEngine(model, self.rule, self.seconds)
        self.opened.append(engine)
        return engine

    @property
    def asked(self) -> list[tuple[str, int]]:
        return [pair for engine in self.opened for pair in engine.asked]


def by_number(request: Request, seed: int) -> str:
    """Sample number i is answered right in i mod 9 of 8 consecutive seeds (so p runs over 0, 1/8, …, 1)."""
    kind, number = request.id[-4], int(request.id[-3:])
    right = seed % 8 < number % 9
    return {
        "s": CLASSES[number % 4] if right else CLASSES[(number + 1 + seed % 3) % 4],
        "q": "Yes." if right else "no",
        "c": "many green trees stand in a forest" if right else "nothing at all",
        "g": "[250, 250, 750, 750]" if right else "[0, 0, 100, 100]",
    }[kind]

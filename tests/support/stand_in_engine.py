"""An engine that answers by a rule, and the model directory and corpora it answers about."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from weights import write_weights

from geozero import engines
from geozero.corpus.images import store
from geozero.corpus.sample import Sample, Split, TaskName, sample_id
from geozero.corpus.store import CorpusWriter
from geozero.engines.base import Completion, Request, SamplingParams

CLASSES = ("farmland", "forest", "river")


KINDS = ("presence", "count")


def one_source(path: Path, source: str, task: TaskName, n: int = 6, split: Split = "test") -> Path:
    """A corpus of one source and task: n samples, each of an image of its own, 40 by 20 pixels."""
    with CorpusWriter(path, {"made_by": "test"}) as writer:
        for i in range(n):
            buffer = io.BytesIO()
            Image.new("RGB", (40, 20), (i * 37 % 256, len(source), ord(source[-1]))).save(buffer, "PNG")
            image = store(buffer.getvalue())
            writer.add_image(image, f"{source}/{i}")
            of_task: dict[str, dict[str, Any]] = {
                "scene_cls": {"answer": CLASSES[i % 3], "classes": CLASSES},
                "vqa": {"answer": ("yes", "2")[i % 2], "question_type": KINDS[i % 2]},
                "caption": {"answer": "a road .", "references": (f"a road and {i} trees .", "a road .")},
                "grounding": {"answer": "[10, 5, 30, 15]", "box": (10.0, 5.0, 30.0, 15.0)},
            }
            added = writer.add(
                Sample(
                    id=sample_id(source, str(i)),
                    task=task,
                    source=source,
                    split=split,
                    image_id=image.image_id,
                    image_key=f"{source}/{i}",
                    question=f"Question {i}?",
                    width=40,
                    height=20,
                    **of_task[task],
                )
            )
            assert added
    return path


def make_model(path: Path, weights: bytes = b"one") -> Path:
    """A directory with the files of a checkpoint and no model in it."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
    write_weights(path / "model.safetensors", weights)
    return path


class StandInEngine:
    """Takes an engine's place: `rule(request, rollout)` gives the text, `!` stands for a request that fails."""

    name, reason = "stand-in", "a test"

    def __init__(self, rule: Callable[[Request, int], str]) -> None:
        self.rule = rule
        self.opened: list[dict[str, Any]] = []
        self.asked: list[tuple[Request, SamplingParams]] = []
        self.n_closed = 0

    def open(self, name: str, model: Path | str, **given: Any) -> StandInEngine:
        self.opened.append({"name": name, "model": model, **given})
        return self

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        self.asked += [(request, params) for request in requests]
        return [[self._answer(self.rule(request, i)) for i in range(params.n)] for request in requests]

    @staticmethod
    def _answer(text: str) -> Completion:
        if text == "!":
            return Completion("", "error", 0, None, "the image has no pixels")
        return Completion(text, "stop", len(text.split()))

    def describe(self) -> dict[str, Any]:
        return {"engine": self.name}

    def close(self) -> None:
        self.n_closed += 1


def stand_in(monkeypatch: pytest.MonkeyPatch, rule: Callable[[Request, int], str]) -> StandInEngine:
    engine = StandInEngine(rule)
    monkeypatch.setattr(engines, "open_engine", engine.open)
    return engine

"""Do transformers and vLLM load a checkpoint and answer alike? Asked before a model is handed on."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from geozero.common.errors import InputError
from geozero.engines import choose_engine
from geozero.engines.base import EngineDied, Request, SamplingParams
from geozero.engines.isolated import IsolatedEngine
from geozero.tasks import SYSTEM_PROMPT

QUESTIONS = ("Describe this image.", "How many red squares are there?", "Is there a river?", "Which colour dominates?")
TOKENS = 32
SECONDS = 1800.0  # for loading, and for answering
SIDE = 96
COLOURS = ("#3a6b35", "#8a7f6a", "#24557a", "#b0603a")
# Rounding decides between two nearly alike tokens where numbers are short; float32 leaves it no room.
NEEDED = {"float32": 1.0}
NEEDED_ELSE = 0.5


@dataclass(frozen=True)
class Agreement:
    """`alike`: share of probe questions with the same answer from both engines, None where vLLM cannot run here
    (`reason` says why); `answers`: what transformers wrote."""

    alike: float | None
    reason: str
    answers: tuple[str, ...]


def check(model: str, dtype: str, max_length: int = 2048, tell: Callable[[str], None] = print) -> Agreement:
    """Ask both engines the same few questions about drawn images, greedily.

    Raises:
        InputError: an engine cannot load the model, or too few answers are alike.
    """
    requests = probes()
    plain = _ask("transformers", model, dtype, max_length, requests)
    tell(f"transformers answers {len(plain)} questions")
    try:
        choose_engine("vllm")
    except InputError as absent:
        return Agreement(None, absent.what, tuple(plain))
    fast = _ask("vllm", model, dtype, max_length, requests)
    alike = sum(a == b for a, b in zip(plain, fast, strict=True)) / len(plain)
    tell(f"vLLM answers {alike:.0%} of them alike")
    if alike < NEEDED.get(dtype, NEEDED_ELSE):
        first = next(i for i, (a, b) in enumerate(zip(plain, fast, strict=True)) if a != b)
        raise InputError(
            f"transformers and vLLM differ on {1 - alike:.0%} of the probe questions, such as "
            f"'{plain[first][:60]}' against '{fast[first][:60]}'",
            model,
            "the checkpoint's configuration does not fit its weights",
        )
    return Agreement(alike, "", tuple(plain))


def probes() -> list[Request]:
    """Each question in both reading modes about a drawn image of its own."""
    found = []
    for i, question in enumerate(QUESTIONS):
        turns = [{"role": "user", "content": f"<image>{question}"}]
        found.append(Request(f"direct-{i}", turns, _image(i)))
        found.append(Request(f"tagged-{i}", [{"role": "system", "content": SYSTEM_PROMPT}, *turns], _image(i)))
    return found


def _image(number: int) -> bytes:
    image = Image.new("RGB", (SIDE, SIDE), COLOURS[number])
    drawing = ImageDraw.Draw(image)
    for i in range(number + 1):
        corner = 8 + 20 * i
        drawing.rectangle((corner, corner, corner + 12, corner + 12), fill="#d02020")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _ask(name: str, model: str, dtype: str, max_length: int, requests: Sequence[Request]) -> list[str]:
    options = {"name": name, "model": model, "dtype": dtype, "max_length": max_length}
    try:
        engine = IsolatedEngine(options, SECONDS)
        try:
            answers = engine.generate(requests, SamplingParams(max_tokens=TOKENS))
        finally:
            engine.close()
    except EngineDied as died:
        raise InputError(f"{name} cannot run the model: {died}", model) from None
    broken = [row[0].error for row in answers if row[0].finish_reason == "error"]
    if broken:
        raise InputError(f"{name} cannot answer: {broken[0]}", model)
    return [row[0].text for row in answers]

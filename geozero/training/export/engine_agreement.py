"""Do transformers and vLLM load a checkpoint and answer alike? Checked before a model is handed on."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import closing
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
# Rounding decides between two nearly equal tokens in shorter number types; float32 leaves it no room.
REQUIRED, REQUIRED_FLOAT32 = 0.5, 1.0


@dataclass(frozen=True)
class Agreement:
    """`alike`: share of probe questions with the same answer from both engines, None where vLLM cannot run here
    (`reason` says why); `answers`: what transformers wrote."""

    alike: float | None
    reason: str
    answers: tuple[str, ...]


def check(model: str, dtype: str, max_length: int = 2048, log: Callable[[str], None] = print) -> Agreement:
    """Ask both engines the same few questions about drawn images, greedily.

    Raises:
        InputError: an engine cannot load the model, or too few answers are alike.
    """
    answers = _answers("transformers", model, dtype, max_length)
    log(f"transformers answers {len(answers)} questions")
    try:
        choose_engine("vllm")
    except InputError as absent:
        return Agreement(None, absent.what, tuple(answers))
    pairs = list(zip(answers, _answers("vllm", model, dtype, max_length), strict=True))
    different = [pair for pair in pairs if pair[0] != pair[1]]
    alike = 1 - len(different) / len(pairs)
    log(f"vLLM gives the same answer to {alike:.0%} of them")
    if alike < (REQUIRED_FLOAT32 if dtype == "float32" else REQUIRED):
        example = " against ".join(f"'{answer[:60]}'" for answer in different[0])
        what = f"transformers and vLLM differ on {1 - alike:.0%} of the probe questions, such as {example}"
        raise InputError(what, model, "the checkpoint's configuration does not fit its weights")
    return Agreement(alike, "", tuple(answers))


def _answers(engine: str, model: str, dtype: str, max_length: int) -> list[str]:
    options = {"name": engine, "model": model, "dtype": dtype, "max_length": max_length}
    try:
        with closing(IsolatedEngine(options, SECONDS)) as running:
            answers = running.generate(_probes(), SamplingParams(max_tokens=TOKENS))
    except EngineDied as died:
        raise InputError(f"{engine} cannot run the model: {died}", model) from None
    failed = [completion.error for completion, *_ in answers if not completion.is_answer]
    if failed:
        raise InputError(f"{engine} cannot answer: {failed[0]}", model)
    return [completion.text for completion, *_ in answers]


def _probes() -> list[Request]:
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

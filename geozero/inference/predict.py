"""Answers about one's own images, GeoTIFF included, with boxes in pixels and in the image's own coordinate system."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from geozero.corpus.image_file import ImageFile, read_image
from geozero.corpus.images import MAX_PIXELS
from geozero.corpus.sample import Box
from geozero.engines import SamplingParams
from geozero.engines.families import default_boxes
from geozero.inference.answer_log import failure
from geozero.inference.loop import LazyEngine, Question, answer_many
from geozero.tasks import prompt
from geozero.tasks.boxes import Convention, from_model, parse_box, parse_box_list
from geozero.tasks.text import Mode, extract_answer, has_thought, scored_answer, thought

QUESTION = "Describe this image."
BATCH = 16  # images answered, and shown, together


@dataclass(frozen=True)
class Prediction:
    """An answer about one image."""

    image: Path
    answer: str = ""  # what is between the tags, else the whole text
    thought: str = ""  # the text before them; empty in direct mode
    boxes: tuple[Box, ...] = ()  # every box of the answer, in pixels of the image file
    map_boxes: tuple[Box, ...] = ()  # the same in the image's coordinate system `crs`, if it has one
    crs: str | None = None
    error: str | None = None  # why there is no answer


def predict(
    model: Path | str,
    images: Sequence[Path],
    question: str = QUESTION,
    *,
    engine: str = "auto",
    mode: Mode = "tagged",
    boxes: Convention | None = None,
    max_tokens: int = 1024,
    max_megapixels: float = MAX_PIXELS / 1e6,
) -> Iterator[Prediction]:
    """Greedy answers, in the images' order; an image that cannot be read costs only itself.

    Args:
        mode: tagged: with the system prompt, so that the model thinks first; direct: the answer alone.
        boxes: what the coordinates that the model writes mean; None: as its family is pre-trained.

    Raises:
        InputError: no such model or engine.
    """
    convention = boxes or default_boxes(model)
    read: dict[str, ImageFile] = {}

    def load(asked: Question) -> bytes:
        image = read_image(Path(asked.image), round(max_megapixels * 1e6))
        read[asked.image] = replace(image, data=b"")
        return image.data

    with LazyEngine(model, SamplingParams(max_tokens=max_tokens), name=engine) as answering:
        for start in range(0, len(images), BATCH):
            paths = images[start : start + BATCH]
            questions = [Question(str(path), prompt(question, mode), str(path)) for path in paths]
            answers = answer_many(answering, questions, load, on_line=lambda line: None)
            for path, completions in zip(paths, answers, strict=True):
                if reason := failure(completions):
                    yield Prediction(path, error=reason)
                else:
                    yield _prediction(path, read[str(path)], completions[0].text, mode, convention)


def _prediction(path: Path, image: ImageFile, text: str, mode: Mode, boxes: Convention) -> Prediction:
    answer = scored_answer(text) or extract_answer(text)
    reasoning = thought(text) if answer != text.strip() and (mode == "tagged" or has_thought(text)) else ""
    single = parse_box(answer)
    written = [single] if single else parse_box_list(answer) or []
    found = tuple(from_model(box, image.width, image.height, boxes) for box in written)
    on_map = tuple(box for box in map(image.on_map, found) if box is not None)
    return Prediction(path, answer, reasoning, found, on_map, image.crs)

"""What the base model reads and writes in pre-training: dialogues about scenes, never in the evaluation's words.

With the system prompt, a dialogue is a question and `thought <answer>answer</answer>`. The thought is *terse*, a remark
that says nothing about the image, or *full*: an opening, then the facts from which the answer follows. The share of
full thoughts in the last stage is the share in which the base thinks when it is asked to (p0). Without the system
prompt, it is a question and a sentence, or a request to describe the image.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from geozero.tasks import SYSTEM_PROMPT
from geozero.tasks.text import CLOSE_TAG, OPEN_TAG
from geozero.toy.model.compound import COMPOUND_KINDS, compound_question
from geozero.toy.world.description import (
    GenericQuestion,
    describe,
    everyday_question,
    inventory,
    opening,
    sentence_answer,
)
from geozero.toy.world.scene import Scene

DESCRIBE_PROMPTS = (
    "Describe this picture.",
    "Tell me what you see.",
    "What can be seen from above?",
    "Look and report.",
)
INVENTORY_PROMPTS = (
    "List everything with its box.",
    "Draw a box around each thing.",
    "Give me all things and their boxes.",
)
TERSE = ("At a glance.", "I had a look.", "Here you are.", "At first sight.", "Quickly said.")
OPENINGS = ("Let me look closely.", "First the facts.", "Step by step.")

# Shares of the kinds of question where they are not those of `everyday_question`.
KINDS = {
    "presence": 0.14,
    "comparison": 0.12,
    "count": 0.12,
    "scene": 0.05,
    "land": 0.03,
    "colour": 0.05,
    "where": 0.26,
    "description": 0.02,
    "parity": 0.05,
    "sum": 0.04,
    "difference": 0.03,
    "order": 0.02,
    "nearest_colour": 0.03,
    "nearest_kind": 0.01,
    "nearest_box": 0.03,
}


@dataclass(frozen=True)
class Mix:
    """Shares of the kinds of dialogue in a stage.

    `tagged`: of the rows with the system prompt. Of a tagged dialogue: `terse` thoughts; of the full ones `relevant`,
    with the facts that the question asks about. Of the dialogues without the system prompt: `sentence` answers and
    `inventory`, all objects with their boxes; the rest describes the image.
    """

    tagged: float = 0.65
    terse: float = 0.3
    relevant: float = 0.95
    sentence: float = 0.5
    inventory: float = 0.3


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One question and what the model should write."""

    system: str
    user: str
    assistant: str


def dialogue(scene: Scene, mix: Mix, rng: random.Random, tagged: bool, kinds: Mapping[str, float] = KINDS) -> Dialogue:
    """One dialogue about the scene, with or without the system prompt; `kinds`: shares of the kinds of question."""
    if tagged:
        asked = question(scene, rng, kinds)
        answer = f"{OPEN_TAG}{asked.answer}{CLOSE_TAG}"
        return Dialogue(SYSTEM_PROMPT, asked.question, f"{thought(scene, asked, mix, rng)} {answer}")
    draw = rng.random()
    if draw < mix.sentence:
        asked = question(scene, rng, kinds)
        return Dialogue("", asked.question, sentence_answer(asked, rng))
    if draw < mix.sentence + mix.inventory:
        return Dialogue("", rng.choice(INVENTORY_PROMPTS), inventory(scene, rng))
    return Dialogue("", rng.choice(DESCRIBE_PROMPTS), describe(scene, rng, rng.random()))


def question(scene: Scene, rng: random.Random, kinds: Mapping[str, float] = KINDS) -> GenericQuestion:
    """An everyday question of a kind drawn by its share; a comparison where the scene does not allow the kind."""
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    if kind in COMPOUND_KINDS:
        return compound_question(scene, rng, kind) or everyday_question(scene, rng, "comparison")
    return everyday_question(scene, rng, kind)


def thought(scene: Scene, asked: GenericQuestion, mix: Mix, rng: random.Random) -> str:
    """What is written before the answer: a remark, or an opening and facts, mostly those that the question asks for."""
    if rng.random() < mix.terse:
        return rng.choice(TERSE)
    lead = rng.choice(OPENINGS)
    if rng.random() >= mix.relevant:
        return f"{lead} {describe(scene, rng, rng.random() * 0.5)}"
    facts = " ".join(asked.facts)
    if asked.kind not in ("scene", "land", "description") and rng.random() < 0.25:
        lead = f"{lead} {opening(scene, rng)}"
    return f"{lead} {facts}"

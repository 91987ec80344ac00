"""Everyday questions that take several looks: right answers, right derivations, and none of the evaluation's words."""

from __future__ import annotations

import math
import random
import re

import pytest

from geozero.tasks.boxes import from_model, iou, parse_box
from geozero.toy.model.compound import COMPOUND_KINDS, compound_question
from geozero.toy.world.language import captions, questions_about, referring
from geozero.toy.world.scene import KINDS, Scene, SceneObject, sample_scene
from geozero.toy.world.suite import EXPRESSIONS, QUESTIONS

WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SYNONYMS = {"house": "building", "car": "vehicle", "boat": "ship", "plane": "airplane", "tank": "storage tank"}


def kinds_of(text: str) -> list[str]:
    """The kinds that a text names, in their order, synonyms included."""
    found = re.findall(r"storage tank|airplane|building|vehicle|house|plane|boat|ship|tank|car", text)
    return [SYNONYMS.get(word, word) for word in found]


def nearest(scene: Scene, item: SceneObject) -> SceneObject:
    def middle(o: SceneObject) -> tuple[float, float]:
        return (o.box[0] + o.box[2]) / 2, (o.box[1] + o.box[3]) / 2

    return min((o for o in scene.objects if o is not item), key=lambda o: math.dist(middle(o), middle(item)))


def shown(scene: Scene, text: str) -> SceneObject:
    """The object whose box a text gives."""
    box = parse_box(text)
    assert box is not None, text
    pixels = from_model(box, scene.size, scene.size)
    return max(scene.objects, key=lambda o: iou(pixels, o.box))


@pytest.mark.parametrize("kind", COMPOUND_KINDS)
def test_answers_and_derivations_are_right(kind: str) -> None:
    asked = 0
    for seed in range(200):
        scene, rng = sample_scene(seed, hard=seed % 2 == 0), random.Random(seed)
        item = compound_question(scene, rng, kind)
        if item is None:
            continue
        asked += 1
        assert item.kind == kind and len(item.facts) >= 2
        counts = [scene.count(k) for k in kinds_of(item.question.split("Options")[0])]
        if kind == "parity":
            odd = sum(counts[:2]) % 2 == 1
            assert item.answer in (("odd", "no") if odd else ("even", "yes")), item
            assert WORDS[sum(counts[:2])] in item.facts[-1] and ("odd" if odd else "even") in item.facts[-1]
        elif kind == "sum":
            assert item.answer == ("yes" if counts[0] + counts[1] > counts[2] else "no"), item
        elif kind == "difference":
            assert item.answer == str(abs(counts[0] - counts[1])), item
            assert item.facts[-1].endswith(f"leaves {WORDS[abs(counts[0] - counts[1])]}.")
        elif kind == "order":
            ranked = sorted(KINDS, key=lambda k: -scene.count(k))
            assert item.answer == ranked[1 if "second" in item.question else 2], item
        else:
            target = nearest(scene, shown(scene, item.facts[0]))
            said = {"nearest_colour": target.colour, "nearest_kind": target.kind}
            if kind == "nearest_box":
                assert shown(scene, item.answer) is target
            else:
                assert item.answer == said[kind]
            assert f"{target.colour} {target.kind}" in item.facts[1]
    assert asked > 60


def test_their_wording_is_not_the_evaluation_s() -> None:
    evaluation: set[str] = set()
    everyday: set[str] = set()
    for seed in range(300):
        scene, rng = sample_scene(seed), random.Random(seed)
        evaluation |= {question for _, question, _ in questions_about(scene, rng)} | set(captions(scene, rng))
        evaluation |= {text for _, text in referring(scene, rng)}
        evaluation |= {c.text for t in (*QUESTIONS.values(), *EXPRESSIONS.values()) for c in t.candidates(scene)}
        made = [compound_question(scene, rng, kind) for kind in COMPOUND_KINDS]
        everyday |= {item.question for item in made if item}
        everyday |= {fact for item in made if item for fact in item.facts}
    assert not evaluation & everyday
    starts = {" ".join(q.split()[:3]) for q in evaluation if q.endswith("?")}
    assert not starts & {" ".join(q.split()[:3]) for q in everyday if "?" in q}

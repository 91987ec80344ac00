"""What is said about a toy scene is true, singles out what it means and gives no answer away."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geozero.tasks.boxes import from_model, iou, parse_box
from geozero.toy.world import suite
from geozero.toy.world.description import QUESTION_KINDS
from geozero.toy.world.language import captions, describe, generic_question, questions_about, referring
from geozero.toy.world.scene import COLOURS, KINDS, SCENE_CLASSES, Scene, SceneObject, sample_scene

SEEDS = st.integers(0, 2**40)
KIND = "|".join(KINDS)
COLOUR = "|".join(COLOURS)
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def scene_of(seed: int, hard: bool) -> tuple[Scene, random.Random]:
    return sample_scene(seed, hard=hard), random.Random(seed)


def middle(item: SceneObject) -> tuple[float, float]:
    return (item.box[0] + item.box[2]) / 2, (item.box[1] + item.box[3]) / 2


def size_of(item: SceneObject) -> float:
    return (item.box[2] - item.box[0]) * (item.box[3] - item.box[1])


def right_answer(scene: Scene, question: str) -> str:
    """The answer by reading the question, apart from how it was drawn."""
    if question == "Is it a rural or an urban area":
        return scene.land
    if match := re.fullmatch(rf"(?:How many|What is the number of) ({KIND})s(?: are there)?\?", question):
        return str(scene.count(match[1]))
    if match := re.fullmatch(rf"Are there (more|less) ({KIND})s than ({KIND})s\?", question):
        a, b = scene.count(match[2]), scene.count(match[3])
        return "yes" if (a > b if match[1] == "more" else a < b) else "no"
    if match := re.fullmatch(rf"Is the number of ({KIND})s equal to the number of ({KIND})s\?", question):
        return "yes" if scene.count(match[1]) == scene.count(match[2]) else "no"
    match = re.fullmatch(rf"Is (?:there )?an? (?:({COLOUR}) )?({KIND})(?: present)?(?: in the image)?\?", question)
    assert match, question
    seen = [o for o in scene.objects if o.kind == match[2] and match[1] in (None, o.colour)]
    return "yes" if seen else "no"


@settings(max_examples=120, deadline=None)
@given(SEEDS, st.booleans())
def test_answers_follow_from_the_scene(seed: int, hard: bool) -> None:
    scene, rng = scene_of(seed, hard)
    rows = questions_about(scene, rng)
    assert [kind for kind, _, _ in rows] == ["presence", "presence", "comp", "count", "rural_urban"]
    for _, question, answer in rows:
        assert answer == right_answer(scene, question), question
    assert rows == questions_about(scene, random.Random(seed))


@pytest.mark.parametrize("hard", [False, True])
def test_questions_give_little_away(hard: bool) -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    by_question: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for seed in range(700):
        for kind, question, answer in questions_about(*scene_of(seed, hard)):
            answers[kind][answer] += 1
            by_question[kind, question][answer] += 1
    for kind in ("presence", "comp"):
        assert 0.44 < answers[kind]["yes"] / answers[kind].total() < 0.56, kind
    assert 0.42 < answers["rural_urban"]["urban"] / 700 < 0.58
    counts = {n: answers["count"][str(n)] / 700 for n in range(6)}
    assert max(counts.values()) < 0.42 and min(counts.values()) > 0.015, counts
    # knowing only the words, one cannot do much better than a coin (asked often enough to tell)
    for (kind, question), tally in by_question.items():
        if kind in ("presence", "comp") and tally.total() >= 50:
            assert 0.3 < tally["yes"] / tally.total() < 0.7, (question, tally)


def denoted(scene: Scene, expression: str) -> list[int]:
    """Indices of the objects that an expression fits, read without any margin."""
    size = scene.size
    objects = list(enumerate(scene.objects))
    match = re.fullmatch(
        rf"the (?:(largest|smallest) )?(?:({COLOUR}) )?({KIND})"
        rf"(?: in the (.+) part| (to the left of|to the right of|above|below) the ({COLOUR}) ({KIND}))?",
        expression,
    )
    assert match, expression
    extreme, colour, kind, part, side, mark_colour, mark_kind = match.groups()
    fitting = [(i, o) for i, o in objects if o.kind == kind and colour in (None, o.colour)]
    if extreme:
        pick = max if extreme == "largest" else min
        best = pick(size_of(o) for _, o in fitting)
        fitting = [(i, o) for i, o in fitting if size_of(o) == best]
    if part:
        words = part.split()
        row = 0 if "upper" in words else 2 if "lower" in words else 1
        column = 0 if "left" in words else 2 if "right" in words else 1
        fitting = [(i, o) for i, o in fitting if tuple(int(v * 3 / size) for v in middle(o)) == (column, row)]
    if side:
        marks = [o for _, o in objects if (o.colour, o.kind) == (mark_colour, mark_kind)]
        assert len(marks) == 1, expression
        mx, my = middle(marks[0])
        tests = {
            "to the left of": lambda x, y: x < mx,
            "to the right of": lambda x, y: x > mx,
            "above": lambda x, y: y < my,
            "below": lambda x, y: y > my,
        }
        fitting = [(i, o) for i, o in fitting if tests[side](*middle(o))]
    return [i for i, _ in fitting]


@settings(max_examples=200, deadline=None)
@given(SEEDS, st.booleans())
def test_an_expression_fits_exactly_its_object(seed: int, hard: bool) -> None:
    scene, rng = scene_of(seed, hard)
    pairs = referring(scene, rng)
    assert len({index for index, _ in pairs}) == len(pairs)
    for index, expression in pairs:
        assert denoted(scene, expression) == [index], expression


def test_expressions_are_many_and_mostly_of_clear_objects() -> None:
    drawn = [(s, pair) for seed in range(300) for s, r in [scene_of(seed, False)] for pair in referring(s, r)]
    assert len(drawn) > 600
    small = sum(scene.objects[index].length < 14 for scene, (index, _) in drawn)
    assert small / len(drawn) < 0.1
    forms = Counter(re.sub(rf"{COLOUR}|{KIND}", "*", text) for _, (_, text) in drawn)
    assert len(forms) >= 12


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.booleans())
def test_captions_are_five_true_sentences(seed: int, hard: bool) -> None:
    scene, rng = scene_of(seed, hard)
    sentences = captions(scene, rng)
    assert len(set(sentences)) == 5
    for sentence in sentences:
        assert sentence == sentence.lower() and sentence.endswith(" .") and "  " not in sentence
        for word, colour, kind in re.findall(
            rf"({'|'.join(NUMBERS[2:])}) (?:({COLOUR}) )?({KIND})s(?! area)", sentence
        ):
            matching = [o for o in scene.objects if o.kind == kind and colour in ("", o.colour)]
            if " part of " in sentence:
                assert NUMBERS.index(word) <= len(matching)
            else:
                assert NUMBERS.index(word) == len(matching) == scene.count(kind)


@settings(max_examples=120, deadline=None)
@given(SEEDS, st.booleans(), st.sampled_from([0.0, 0.4, 1.0]))
def test_descriptions_are_short_and_true(seed: int, hard: bool, detail: float) -> None:
    scene, rng = scene_of(seed, hard)
    text = describe(scene, rng, detail)
    assert 10 <= len(text.split()) <= 40, text
    assert SCENE_CLASSES[scene.scene_class] in text and scene.land in text
    told = dict.fromkeys(KINDS, 0)
    for kind, word in re.findall(rf"({KIND})s(?::| there are| i count) ({'|'.join(NUMBERS)}|none)", text.lower()):
        told[kind] = 0 if word == "none" else NUMBERS.index(word)
    assert told == {kind: scene.count(kind) for kind in KINDS}, text
    for colour, kind, box in re.findall(rf"({COLOUR}) ({KIND})[^.\[]*(\[[^\]]*\])", text):
        parsed = parse_box(box)
        assert parsed is not None
        pixels = from_model(parsed, scene.size, scene.size)
        assert any(o.colour == colour and o.kind == kind and iou(pixels, o.box) > 0.9 for o in scene.objects), text


def test_more_detail_says_more() -> None:
    def length(detail: float) -> float:
        return sum(len(describe(*scene_of(seed, False), detail).split()) for seed in range(100)) / 100

    assert length(0.0) + 8 < length(1.0)


@pytest.mark.parametrize("kind", QUESTION_KINDS)
def test_everyday_questions_have_right_answers_and_telling_facts(kind: str) -> None:
    asked = 0
    for seed in range(150):
        scene, rng = scene_of(seed, seed % 2 == 0)
        item = generic_question(scene, rng, kind)
        if item.kind != kind:
            assert item.kind == "count"
            continue
        asked += 1
        facts = " ".join(item.facts)
        if kind == "where":
            box = parse_box(item.answer)
            assert box is not None and item.answer in facts
            assert max(iou(from_model(box, scene.size, scene.size), o.box) for o in scene.objects) > 0.85
        elif kind == "count":
            told = next(w for w in re.findall(r"\w+", facts.lower()) if w in (*NUMBERS, "none"))
            assert (0 if told == "none" else NUMBERS.index(told)) == int(item.answer)
        elif kind in ("scene", "land", "colour", "description"):
            assert item.answer in facts
        else:
            assert item.answer in ("yes", "no") and item.facts
    assert asked > 60


def test_presence_facts_decide_the_answer() -> None:
    for seed in range(150):
        scene, rng = scene_of(seed, False)
        item = generic_question(scene, rng, "presence")
        fact = item.facts[0].lower()
        colour = next((c for c in COLOURS if c in item.question), None)
        told = not re.search(r"\bnone\b", fact) and (colour is None or colour in fact)
        assert told == (item.answer == "yes"), item


def test_everyday_wording_is_not_the_evaluation_s() -> None:
    evaluation: set[str] = set()
    everyday: set[str] = set()
    expressions: set[str] = set()
    for seed in range(400):
        scene, rng = scene_of(seed, False)
        evaluation |= {c.text for kind in suite.QUESTIONS.values() for c in kind.candidates(scene)}
        expressions |= {c.text.removeprefix("the ") for c in suite.two_hop_grounding(scene)}
        evaluation |= {question for _, question, _ in questions_about(scene, rng)} | set(captions(scene, rng))
        evaluation |= {text for _, text in referring(scene, rng)}
        everyday |= {generic_question(scene, rng).question for _ in range(4)}
        everyday |= {sentence + "." for sentence in describe(scene, rng, 0.8).split(".")}
    assert not evaluation & everyday and len(expressions) > 50
    assert not [text for text in everyday if any(expression in text for expression in expressions)]
    starts = {" ".join(q.split()[:3]) for q in evaluation if q.endswith("?")}
    assert not starts & {" ".join(q.split()[:3]) for q in everyday if q.endswith("?")}

"""Everyday questions about a toy scene and their answers, for teaching the base model to look up what is asked.

Nothing here uses the evaluation's wording (`language.vqa`, `captions`, `referring`): what a base learns from these
texts is to see, to look up and to give the form of answer that a question wants, not the test's questions.

Example: "Are there any boats in the picture?\nOne word will do.", "yes".
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from geozero.toy import wording
from geozero.toy.description import coordinates, describe, kind_sentence, opening, place_words, spot_sentence
from geozero.toy.facts import draw_comparison, draw_count, draw_presence, plural, with_article
from geozero.toy.referring import Reference, draw_references
from geozero.toy.world import SCENE_CLASSES, Scene

# Shares of the kinds of question; what a scene does not allow falls back on "count".
_KIND_SHARES = {
    "presence": 0.20,
    "comparison": 0.20,
    "count": 0.10,
    "scene": 0.07,
    "land": 0.05,
    "colour": 0.05,
    "where": 0.28,
    "caption": 0.05,
}
QUESTION_KINDS: tuple[str, ...] = tuple(_KIND_SHARES)


@dataclass(frozen=True)
class GenericQuestion:
    """A question, its answer, what it asks for (`kind`: presence | comparison | count | scene | land | colour |
    where | caption), and sentences in the descriptions' wording from which the answer follows."""

    question: str
    answer: str
    kind: str
    facts: tuple[str, ...]


def _worded(template: str, *nouns: str, rng: random.Random) -> str:
    """A question from its template; the first noun also as {a}, with its article, and as {s}, plural."""
    filled = template.replace("{at}", rng.choice(wording.AT)).replace("{a}", with_article(nouns[0]))
    return filled.replace("{s}", plural(nouns[0])).format(*nouns)


def _noun(kind: str, rng: random.Random) -> str:
    return rng.choice(wording.SYNONYMS[kind])


def hint(kind: str, rng: random.Random) -> str:
    """What a person may add to a question of this kind: the form wanted, for a scene the names to choose from."""
    if kind == "scene":
        names = list(SCENE_CLASSES.values())
        rng.shuffle(names)
        return rng.choice(wording.SCENE_HINTS).format(", ".join(names))
    hints = {"where": wording.BOX_HINTS, "count": wording.COUNT_HINTS, "caption": wording.CAPTION_HINTS}
    return rng.choice(hints.get(kind, wording.CLOSED_HINTS))


def everyday_question(scene: Scene, rng: random.Random, kind: str | None = None) -> GenericQuestion:
    """`generic_question`, at times with a hint on the form of the answer."""
    asked = generic_question(scene, rng, kind)
    addition = hint(asked.kind, rng)
    return replace(asked, question=rng.choice((" ", "\n")).join(filter(None, (asked.question, addition))))


def sentence_answer(asked: GenericQuestion, rng: random.Random) -> str:
    """The answer as a person would say it, never the bare word: what a model writes that was not told to be terse."""
    if asked.kind in ("presence", "comparison"):
        said = {"yes": ("Yes, I think so.", "Yes, it looks so."), "no": ("No, I do not.", "No, not here.")}
        return rng.choice(said[asked.answer])
    if asked.kind == "caption":
        return asked.answer
    forms = {
        "count": ("I count {}.", "There are {} of them.", "The number is {}."),
        "where": ("It lies at {}.", "You find it at {}."),
        "colour": ("It is {}.", "I see {}."),
    }
    return rng.choice(forms.get(asked.kind, ("It looks like {}.", "I would say {}."))).format(asked.answer)


def generic_question(scene: Scene, rng: random.Random, kind: str | None = None) -> GenericQuestion:
    """An everyday question; of a kind in QUESTION_KINDS, drawn by its share if None.

    Answers use the evaluation's vocabulary: yes, no, integers, class names, urban, rural, colours, boxes
    "[x1, y1, x2, y2]" in 0..1000. Where the scene has nothing to point at, a count question comes instead.
    """
    kind = kind or rng.choices(QUESTION_KINDS, list(_KIND_SHARES.values()))[0]
    if kind == "presence":
        return _presence_question(scene, rng)
    if kind == "comparison":
        return _comparison_question(scene, rng)
    if kind == "scene":
        return GenericQuestion(
            rng.choice(wording.SCENE), SCENE_CLASSES[scene.scene_class], "scene", (opening(scene, rng),)
        )
    if kind == "land":
        buildings = kind_sentence(scene, "building", rng, colours=False, places=False)
        return GenericQuestion(rng.choice(wording.LAND), scene.land, "land", (buildings, opening(scene, rng)))
    if kind == "caption":
        text = describe(scene, rng, 0.3)
        return GenericQuestion(rng.choice(wording.CAPTION), text, "caption", (text,))
    if kind == "where":
        references = draw_references(scene, rng)
        if references:
            return _where_question(scene, rng.choice(references), rng)
    if kind == "colour":
        lone = [item for item in scene.objects if scene.count(item.kind) == 1]
        if lone:
            item = rng.choice(lone)
            fact = kind_sentence(scene, item.kind, rng, colours=True, places=False)
            question = rng.choice(wording.COLOUR).format(f"the {_noun(item.kind, rng)}")
            return GenericQuestion(question, item.colour, "colour", (fact,))
    counted = draw_count(scene, rng)
    fact = kind_sentence(scene, counted, rng, colours=False, places=False)
    question = _worded(rng.choice(wording.COUNT), _noun(counted, rng), rng=rng)
    return GenericQuestion(question, str(scene.count(counted)), "count", (fact,))


def _presence_question(scene: Scene, rng: random.Random) -> GenericQuestion:
    coloured = rng.random() < 0.5
    kind, colour, yes = draw_presence(scene, rng, coloured)
    noun = f"{colour} {_noun(kind, rng)}".strip()
    fact = kind_sentence(scene, kind, rng, colours=coloured, places=False)
    return GenericQuestion(
        _worded(rng.choice(wording.PRESENCE), noun, rng=rng), "yes" if yes else "no", "presence", (fact,)
    )


def _comparison_question(scene: Scene, rng: random.Random) -> GenericQuestion:
    relation, first, second, yes = draw_comparison(scene, rng)
    nouns = plural(_noun(first, rng)), plural(_noun(second, rng))
    question = _worded(rng.choice(wording.COMPARISON[relation]), *nouns, rng=rng)
    facts = tuple(kind_sentence(scene, kind, rng, colours=False, places=False) for kind in (first, second))
    return GenericQuestion(question, "yes" if yes else "no", "comparison", facts)


def _where_question(scene: Scene, reference: Reference, rng: random.Random) -> GenericQuestion:
    item, noun = scene.objects[reference.index], _noun(reference.kind, rng)
    question = rng.choice(wording.WHERE).format(f"the {_refer(reference, noun)}")
    fact = spot_sentence(scene, item, rng, _refer(reference, reference.kind))
    return GenericQuestion(question, coordinates(item, scene), "where", (fact,))


def _refer(reference: Reference, noun: str) -> str:
    """A reference in everyday words, without its article."""
    if reference.form == "colour":
        return f"{reference.colour} {noun}"
    if reference.form == "size":
        return f"{wording.EXTREMES[reference.extreme]} {noun}"
    if reference.form == "part":
        return f"{noun} at the {place_words(reference.part)}"
    if reference.form == "relation":
        return f"{noun} {wording.SIDES[reference.side]} the {' '.join(reference.landmark)}"
    return f"only {noun}"

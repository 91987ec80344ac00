"""Texts about a toy scene in the evaluation's wording: questions, captions, expressions.

`geozero.toy.world.description` holds the free descriptions and everyday questions in other words.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from geozero.toy.world.description import GenericQuestion, describe, generic_question
from geozero.toy.world.facts import draw_comparison, draw_count, draw_presence, number, plural, with_article
from geozero.toy.world.referring import part_of, part_words, referring
from geozero.toy.world.scene import KINDS, Scene

__all__ = ["GenericQuestion", "captions", "describe", "generic_question", "questions_about", "referring"]


# --- questions, worded as in RSVQA-LR ----------------------------------------------------------------------


def questions_about(scene: Scene, rng: random.Random) -> list[tuple[str, str, str]]:
    """Five (question type, question, answer): presence twice (kind; kind and colour), comp, count, rural_urban.

    Answers are drawn first and questions to match, so that yes and no are even and a question's words say
    next to nothing about its answer. Counts are integer strings, as RSVQA-LR stores them.
    """
    kind, _, yes = draw_presence(scene, rng, coloured=False)
    noun = with_article(kind)
    template = rng.choice(("Is {} present in the image?", "Is there {} in the image?", "Is {} present?"))
    rows = [("presence", template.format(noun), _yes_no(yes))]

    kind, colour, yes = draw_presence(scene, rng, coloured=True)
    template = rng.choice(("Is there a {} {}?", "Is a {} {} present in the image?"))
    rows.append(("presence", template.format(colour, kind), _yes_no(yes)))

    relation, first, second, yes = draw_comparison(scene, rng)
    if relation == "equal":
        question = f"Is the number of {plural(first)} equal to the number of {plural(second)}?"
    else:
        question = f"Are there {relation} {plural(first)} than {plural(second)}?"
    rows.append(("comp", question, _yes_no(yes)))

    kind = draw_count(scene, rng)
    template = rng.choice(("How many {} are there?", "What is the number of {}?"))
    rows.append(("count", template.format(plural(kind)), str(scene.count(kind))))
    rows.append(("rural_urban", "Is it a rural or an urban area", scene.land))
    return rows


def _yes_no(yes: bool) -> str:
    return "yes" if yes else "no"


# --- captions, in RSICD's style ----------------------------------------------------------------------------

_PLACE = {
    "Airport": ("an", "airport", "in"),
    "DenseResidential": ("a", "dense residential area", "in"),
    "Farmland": ("a", "piece of farmland", "on"),
    "Forest": ("a", "forest", "in"),
    "Parking": ("a", "parking lot", "in"),
    "Port": ("a", "port", "in"),
    "River": ("a", "river", "near"),
    "StorageTanks": ("a", "storage tanks area", "in"),
}


def captions(scene: Scene, rng: random.Random) -> list[str]:
    """Five different reference sentences: lower case, tokens parted by spaces, ending in " ."."""
    article, place, preposition = _PLACE[scene.scene_class]
    groups = [_group(scene, kind) for kind in sorted(KINDS, key=lambda k: (-scene.count(k), k)) if scene.count(kind)]
    if not groups:
        return _bare(scene.land, article, place)
    listing = _join(groups)
    verb = "is" if len(scene.objects) == 1 else "are"
    sentences = [
        f"{listing} {verb} {preposition} {article} {place} .",
        f"{with_article(scene.land)} {place} with {listing} .",
        f"there {verb} {listing} {preposition} the {place} .",
        f"{_layout(scene, rng)} of {article} {place} .",
    ]
    if len(groups) > 1:
        first, second = _join(groups[: len(groups) // 2]), _join(groups[len(groups) // 2 :])
        near = rng.choice(("near", "next to", "beside"))
        sentences.append(f"{first} {near} {second} {preposition} {with_article(scene.land)} {place} .")
    else:
        sentences.append(f"only {listing} can be seen {preposition} {article} {place} .")
    return sentences


def _group(scene: Scene, kind: str) -> str:
    """All objects of a kind: "a white ship", "two red vehicles", "three buildings"."""
    colours = {item.colour for item in scene.objects if item.kind == kind}
    shared = f"{colours.pop()} " if len(colours) == 1 else ""
    count = scene.count(kind)
    return with_article(shared + kind) if count == 1 else f"{number(count)} {shared}{plural(kind)}"


def _layout(scene: Scene, rng: random.Random) -> str:
    """Where the most frequent kind is: "two vehicles are in the upper left part"."""
    kind = max(KINDS, key=lambda k: (scene.count(k), k))
    items = [item for item in scene.objects if item.kind == kind]
    parts = Counter(part_of(item, scene.size) for item in items)
    part, count = rng.choice([(p, n) for p, n in parts.items() if n == max(parts.values())])
    colours = {item.colour for item in items if part_of(item, scene.size) == part}
    shared = f"{colours.pop()} " if len(colours) == 1 else ""
    if count == 1:
        return f"{with_article(shared + kind)} is in the {part_words(part)} part"
    return f"{number(count)} {shared}{plural(kind)} are in the {part_words(part)} part"


def _bare(land: str, article: str, place: str) -> list[str]:
    return [
        f"{article} {place} with nothing on it .",
        f"{with_article(land)} {place} without any objects .",
        f"there is only {article} {place} .",
        f"it is a bare {place} .",
        f"nothing stands in the {place} .",
    ]


def _join(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{' , '.join(items[:-1])} and {items[-1]}"

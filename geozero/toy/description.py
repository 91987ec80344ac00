"""Free descriptions of a toy scene, for teaching the base model to see.

Example: "A rural farmland scene. Of vehicles there are two red. The blue ship is at the top left, at
[40, 85, 260, 310]."
"""

from __future__ import annotations

import random
from collections import Counter

from geozero.tasks.boxes import format_box, to_model
from geozero.toy.facts import number, plural, with_article
from geozero.toy.referring import part_of
from geozero.toy.world import KINDS, SCENE_CLASSES, Scene, SceneObject

MOST_WORDS = 40
FEWEST_WORDS = 10

_ROWS = ("top", "middle", "bottom")
_COLUMNS = ("left", "middle", "right")


def place_words(part: tuple[int, int]) -> str:
    """(row, column) of the thirds as the descriptions say it: "top left", "centre", "bottom middle"."""
    row, column = part
    return "centre" if part == (1, 1) else f"{_ROWS[row]} {_COLUMNS[column]}"


def coordinates(item: SceneObject, scene: Scene) -> str:
    """The object's box as "[x1, y1, x2, y2]", integers relative to 0..1000."""
    return format_box(to_model(item.box, scene.size, scene.size, "norm1000"))


def opening(scene: Scene, rng: random.Random) -> str:
    """The sentence that names the scene class and the land."""
    name = SCENE_CLASSES[scene.scene_class]
    return rng.choice(
        (
            f"{with_article(scene.land).capitalize()} {name} scene.",
            f"This is {name}, {scene.land} land.",
            f"The picture shows {name}, and it looks {scene.land}.",
        )
    )


def kind_sentence(scene: Scene, kind: str, rng: random.Random, *, colours: bool, places: bool) -> str:
    """How many of a kind there are, with their colours and, for one or two of them, their places if wanted.

    The kind comes before its number: what is written next can then be looked up word by word. With the number first
    a small model has to guess a number and then find a kind that has it, and it did not learn to.
    """
    items = [item for item in scene.objects if item.kind == kind]
    lead = rng.choice(("{}: {}.", "Of {} there are {}.", "For {} I count {}."))
    return _sentence(lead, plural(kind), _tally(scene, items, colours=colours, places=places) if items else "none")


def _tally(scene: Scene, items: list[SceneObject], *, colours: bool, places: bool) -> str:
    """ "two", "two red", "two, one red and one blue", each at times with "at the top left"."""
    tally = Counter(item.colour for item in items)
    what = number(len(items))
    if colours and len(tally) == 1:
        what += f" {items[0].colour}"
    elif colours:
        what += ", " + _and([f"{number(count)} {colour}" for colour, count in tally.most_common()])
    spots = sorted({part_of(item, scene.size) for item in items})
    if places and len(spots) <= 2:
        what += " at the " + _and([place_words(spot) for spot in spots])
    return what


def _sentence(lead: str, *parts: str) -> str:
    text = lead.format(*parts)
    return text[0].upper() + text[1:]


def _and(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def spot_sentence(scene: Scene, item: SceneObject, rng: random.Random, name: str = "") -> str:
    """Where one object lies: its third of the image and its coordinates. `name` replaces colour and kind."""
    name, where = name or f"{item.colour} {item.kind}", place_words(part_of(item, scene.size))
    box = coordinates(item, scene)
    return rng.choice(
        (
            f"The {name} is at the {where}, at {box}.",
            f"At the {where} lies the {name} at {box}.",
            f"The {name} lies at {box}.",
        )
    )


def _unique(scene: Scene) -> list[SceneObject]:
    """Objects that no other one shares kind and colour with."""
    tally = Counter((item.kind, item.colour) for item in scene.objects)
    return [item for item in scene.objects if tally[item.kind, item.colour] == 1]


def _words(sentences: list[str]) -> int:
    return sum(len(sentence.split()) for sentence in sentences)


def describe(scene: Scene, rng: random.Random, detail: float) -> str:
    """A free description of 10 to 40 words: class, land and the number of every kind that is there.

    `detail` in [0, 1] adds, with growing chance and as far as the words reach: colours, places, coordinates
    "at [x1, y1, x2, y2]" (relative 0..1000) and kinds that are absent.
    """
    kinds = [kind for kind in KINDS if scene.count(kind)]
    rng.shuffle(kinds)
    plain = {kind: kind_sentence(scene, kind, rng, colours=False, places=False) for kind in kinds}
    sentences = [opening(scene, rng), *plain.values()]
    order = list(enumerate(kinds, start=1))
    rng.shuffle(order)
    for position, kind in order:  # richer sentences, where they fit
        if rng.random() < detail:
            places = rng.random() < detail * 0.6
            richer = kind_sentence(scene, kind, rng, colours=True, places=places)
            if _words(sentences) - len(sentences[position].split()) + len(richer.split()) <= MOST_WORDS:
                sentences[position] = richer
    spots = _unique(scene)
    for item in rng.sample(spots, min(2, len(spots))):
        extra = spot_sentence(scene, item, rng)
        if rng.random() < detail * 0.5 and _words([*sentences, extra]) <= MOST_WORDS:
            sentences.append(extra)
    absent = [kind for kind in KINDS if not scene.count(kind)]
    rng.shuffle(absent)
    for kind in absent:
        extra = kind_sentence(scene, kind, rng, colours=False, places=False)
        wanted = rng.random() < detail * 0.3 or _words(sentences) < FEWEST_WORDS
        if wanted and _words([*sentences, extra]) <= MOST_WORDS:
            sentences.append(extra)
    if rng.random() < 0.2:  # now and then the place comes last
        sentences.append(sentences.pop(0))
    return " ".join(sentences)

"""The facts that a toy scene may be asked about, drawn so that no answer is more likely than another; and nouns."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from geozero.toy.world.scene import COLOURS, KINDS, Scene

# Share of scenes with 0, 1, … 5 objects of a kind; measured on 6,000 scenes, easy and hard together. A test
# holds them to within 0.03. They are only used to draw questions evenly.
COUNT_PRIOR: dict[str, tuple[float, ...]] = {
    "building": (0.30, 0.09, 0.12, 0.26, 0.15, 0.08),
    "vehicle": (0.55, 0.21, 0.13, 0.07, 0.03, 0.01),
    "ship": (0.52, 0.23, 0.15, 0.07, 0.02, 0.01),
    "airplane": (0.55, 0.20, 0.15, 0.06, 0.03, 0.01),
    "storage tank": (0.57, 0.20, 0.13, 0.06, 0.03, 0.01),
}
RELATIONS = ("more", "less", "equal")
HARD_NEGATIVES = 0.6  # share of coloured presence questions answered no whose kind is there in another colour
COUNT_EVENNESS = 0.5  # 0 draws a kind to count at random, 1 as evenly over the numbers as the scenes allow
BOTH_ABSENT = 0.3  # weight of comparing two kinds of which the scene has none
T = TypeVar("T")
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def number(count: int) -> str:
    """The number word of 0..9."""
    return _NUMBERS[count]


def plural(noun: str) -> str:
    """Plural of a kind."""
    return f"{noun}s"


def with_article(noun: str) -> str:
    """ "a red ship", "an airplane"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _pick(items: Sequence[T], weight: Callable[[T], float], rng: random.Random) -> T:
    return rng.choices(items, [weight(item) for item in items])[0]


def draw_presence(scene: Scene, rng: random.Random, coloured: bool) -> tuple[str, str, bool]:
    """(kind, colour or "", whether there is one). The answer is drawn first, then a kind that gives it."""
    present = sorted({item.kind for item in scene.objects})
    absent = [kind for kind in KINDS if kind not in present]
    yes = rng.random() < 0.5
    if coloured:
        yes = yes and bool(present)
        if yes or (present and (not absent or rng.random() < HARD_NEGATIVES)):
            kind = _pick(present, lambda k: 1 / (1 - COUNT_PRIOR[k][0]), rng)
            seen = sorted({item.colour for item in scene.objects if item.kind == kind})
            unseen = [colour for colour in COLOURS if colour not in seen]
            if yes or unseen:
                return kind, rng.choice(seen if yes else unseen), yes
        kind = _pick(absent or present, lambda k: 1 / COUNT_PRIOR[k][0], rng)
        colour = rng.choice(COLOURS)
        return kind, colour, any((i.kind, i.colour) == (kind, colour) for i in scene.objects)
    if (yes and present) or not absent:
        return _pick(present, lambda k: 1 / (1 - COUNT_PRIOR[k][0]), rng), "", True
    return _pick(absent, lambda k: 1 / COUNT_PRIOR[k][0], rng), "", False


def compare(relation: str, first: int, second: int) -> bool:
    """Whether `first` is more than, less than or equal to `second`."""
    return {"more": first > second, "less": first < second, "equal": first == second}[relation]


def _prior(relation: str, first: str, second: str) -> float:
    """Share of scenes in which the relation holds, were the kinds independent."""
    return sum(
        p * q
        for i, p in enumerate(COUNT_PRIOR[first])
        for j, q in enumerate(COUNT_PRIOR[second])
        if compare(relation, i, j)
    )


_COMPARISONS = [(r, a, b) for r in RELATIONS for a in KINDS for b in KINDS if a != b]
_COMPARISON_PRIOR = {key: _prior(*key) for key in _COMPARISONS}


def draw_comparison(scene: Scene, rng: random.Random) -> tuple[str, str, str, bool]:
    """(relation, first kind, second kind, whether it holds); the answer is drawn first."""
    yes = rng.random() < 0.5
    possible = [key for key in _COMPARISONS if compare(key[0], scene.count(key[1]), scene.count(key[2])) == yes]
    relation = rng.choice(sorted({key[0] for key in possible}))  # never empty: counts are equal or one is more

    def weight(key: tuple[str, str, str]) -> float:
        share = _COMPARISON_PRIOR[key] if yes else 1 - _COMPARISON_PRIOR[key]
        return (1.0 if scene.count(key[1]) or scene.count(key[2]) else BOTH_ABSENT) / share

    return *_pick([key for key in possible if key[0] == relation], weight, rng), yes


def draw_count(scene: Scene, rng: random.Random) -> str:
    """A kind to count; rare numbers are preferred, so that answers spread over 0..5."""
    return _pick(KINDS, lambda k: COUNT_PRIOR[k][min(5, scene.count(k))] ** -COUNT_EVENNESS, rng)

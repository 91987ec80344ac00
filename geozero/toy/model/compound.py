"""Everyday questions that take more than one look: sums, differences, an order, and an object named by another one.

Like `geozero.toy.world.description`, nothing here uses the evaluation's wording. The facts of a question are its
derivation, sentence by sentence.

Example: question "Put the boats and the tanks together: odd or even?", facts "Ships: two.", "For storage tanks I count
three.", "Two and three make five, an odd total.", answer "odd".
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial

from geozero.toy.world.description import (
    GenericQuestion,
    coordinates,
    everyday_noun,
    hint,
    kind_sentence,
    refer,
    spot_sentence,
)
from geozero.toy.world.facts import number, plural
from geozero.toy.world.referring import POSITION_MARGIN, centre, references_to
from geozero.toy.world.scene import KINDS, Scene, SceneObject

NEAREST_MARGIN = 1.25  # ratio of distances between the nearest object and the next
_PLACES = ("second", "third")

_PARITY = (
    "Put the {} and the {} together: odd or even?",
    "Odd or even: the {} plus the {}?",
    "Add the {} to the {}. Do you get an odd or an even total?",
)
_EVEN = (
    "Do the {} plus the {} make an even total?",
    "Could the {} and the {} be paired off with none left over?",
)
_SUM = (
    "Do the {} plus the {} outnumber the {}?",
    "Taken as one heap, do the {} and the {} exceed the {}?",
    "Would the {} and the {} in one heap be a larger crowd than the {}?",
)
_DIFFERENCE = (
    "By what number do the {} exceed the {}?",
    "Take the {1} away from the {0}. What is left?",
    "What remains of the {} once you subtract the {}?",
)
_ORDER = (
    "Sort the kinds by their counts, largest first. What comes {}?",
    "From the most to the least numerous: what is in {} place?",
)
_NEAREST_COLOUR = (
    "What colour is the thing closest to the {}?",
    "Go from the {} to whatever lies closest. What colour is that?",
)
_NEAREST_KIND = ("What is closest to the {}?", "Go from the {} to whatever lies closest. What is it?")
_NEAREST_BOX = (
    "Show me what lies closest to the {}.",
    "Go from the {} to whatever lies closest and mark that.",
    "Draw a box around the thing closest to the {}.",
)


def compound_question(scene: Scene, rng: random.Random, kind: str) -> GenericQuestion | None:
    """A question of a kind in COMPOUND_KINDS, sometimes with a hint; None where the scene does not allow one."""
    asked = _BUILDERS[kind](scene, rng)
    if asked is None:
        return None
    addition = hint({"difference": "count", "nearest_box": "where"}.get(kind, kind), rng)
    question = rng.choice((" ", "\n")).join(filter(None, (asked.question, addition)))
    return GenericQuestion(question, asked.answer, kind, asked.facts)


def _total(count: int) -> str:
    return "ten" if count == 10 else number(count) if count else "none"


def _counted(scene: Scene, kinds: list[str], rng: random.Random) -> list[str]:
    return [kind_sentence(scene, kind, rng, colours=False, places=False) for kind in kinds]


def _names(kinds: list[str], rng: random.Random) -> list[str]:
    return [plural(everyday_noun(kind, rng)) for kind in kinds]


def _sum_sentence(first: int, second: int, end: str) -> str:
    return f"{_total(first).capitalize()} and {_total(second)} make {_total(first + second)}, {end}."


def _parity(scene: Scene, rng: random.Random) -> GenericQuestion:
    present = [kind for kind in KINDS if scene.count(kind)]
    kinds = rng.sample(present if len(present) > 1 and rng.random() < 0.7 else KINDS, k=2)
    first, second = (scene.count(kind) for kind in kinds)
    odd = (first + second) % 2
    facts = (*_counted(scene, kinds, rng), _sum_sentence(first, second, f"an {'odd' if odd else 'even'} total"))
    if rng.random() < 0.5:
        return GenericQuestion(rng.choice(_PARITY).format(*_names(kinds, rng)), "odd" if odd else "even", "", facts)
    return GenericQuestion(rng.choice(_EVEN).format(*_names(kinds, rng)), "no" if odd else "yes", "", facts)


def _sum(scene: Scene, rng: random.Random) -> GenericQuestion:
    more = rng.random() < 0.5
    draws = [rng.sample(KINDS, k=3) for _ in range(8)]

    def exceeds(kinds: list[str]) -> bool:
        return scene.count(kinds[0]) + scene.count(kinds[1]) > scene.count(kinds[2])

    kinds = next((kinds for kinds in draws if exceeds(kinds) == more), draws[0])
    first, second, third = (scene.count(kind) for kind in kinds)
    counted = _counted(scene, kinds, rng)
    facts = (*counted, _sum_sentence(first, second, f"against {_total(third)}"))
    question = rng.choice(_SUM).format(*_names(kinds, rng))
    return GenericQuestion(question, "yes" if exceeds(kinds) else "no", "", facts)


def _difference(scene: Scene, rng: random.Random) -> GenericQuestion | None:
    pairs = [
        (a, b)
        for a in KINDS
        for b in KINDS
        if scene.count(a) > scene.count(b) and (scene.count(b) or rng.random() < 0.3)
    ]
    if not pairs:
        return None
    kinds = list(rng.choice(pairs))
    first, second = (scene.count(kind) for kind in kinds)
    left = f"{_total(first).capitalize()} less {_total(second)} leaves {_total(first - second)}."
    question = rng.choice(_DIFFERENCE).format(*_names(kinds, rng))
    return GenericQuestion(question, str(first - second), "", (*_counted(scene, kinds, rng), left))


def _order(scene: Scene, rng: random.Random) -> GenericQuestion | None:
    kinds = sorted((k for k in KINDS if scene.count(k)), key=lambda k: -scene.count(k))
    counts = [scene.count(kind) for kind in kinds] + [0]
    clear = [i for i in range(1, min(3, len(kinds))) if counts[i - 1] > counts[i] > counts[i + 1]]
    if not clear:
        return None
    place = rng.choice(clear)
    question = rng.choice(_ORDER).format(_PLACES[place - 1])
    return GenericQuestion(question, kinds[place], "", tuple(_counted(scene, kinds, rng)))


def nearest_to(scene: Scene, item: SceneObject) -> SceneObject | None:
    """The object whose middle is nearest to that of `item`, if it is nearer by a margin than any other."""
    here = centre(item, scene.size)
    others = [(math.dist(centre(o, scene.size), here), i) for i, o in enumerate(scene.objects) if o is not item]
    ranked = sorted(others)
    if not ranked or (len(ranked) > 1 and ranked[1][0] < NEAREST_MARGIN * ranked[0][0]):
        return None
    return scene.objects[ranked[0][1]]


def _edge_names(scene: Scene) -> list[tuple[int, str]]:
    """(index, "farthest left") of objects of which there are several, by a margin."""
    found = []
    for kind in KINDS:
        items = [(i, centre(item, scene.size)) for i, item in enumerate(scene.objects) if item.kind == kind]
        if len(items) < 2:
            continue
        for axis, words in enumerate((("left", "right"), ("up", "down"))):
            ranked = sorted(items, key=lambda pair, axis=axis: pair[1][axis])  # type: ignore[misc]
            for (index, here), (_, next_one), word in zip(
                (ranked[0], ranked[-1]), (ranked[1], ranked[-2]), words, strict=True
            ):
                if abs(here[axis] - next_one[axis]) >= POSITION_MARGIN:
                    found.append((index, f"farthest {word}"))
    return found


def _hop(scene: Scene, rng: random.Random) -> tuple[int, Callable[[str], str], SceneObject] | None:
    """An object, what calls it by a noun and one look, and the object nearest to it."""
    names: dict[str, list[tuple[int, Callable[[str], str]]]] = {}
    for index in range(len(scene.objects)):
        for reference in references_to(scene, index):
            if reference.form != "relation":
                names.setdefault(reference.form, []).append((index, partial(refer, reference)))
    for index, words in _edge_names(scene):
        names.setdefault("edge", []).append((index, f"{{}} {words}".format))
    near = {index: nearest_to(scene, item) for index, item in enumerate(scene.objects)}
    named = {form: [pair for pair in pairs if near[pair[0]]] for form, pairs in names.items()}
    forms = sorted(form for form, pairs in named.items() if pairs)
    if not forms:
        return None
    index, call = rng.choice(named[rng.choice(forms)])
    neighbour = near[index]
    assert neighbour is not None
    return index, call, neighbour


def _nearest(
    scene: Scene, rng: random.Random, wordings: tuple[str, ...], answer: Callable[[SceneObject], str]
) -> GenericQuestion | None:
    hop = _hop(scene, rng)
    if hop is None:
        return None
    index, call, near = hop
    item = scene.objects[index]
    landmark = spot_sentence(scene, item, rng, call(item.kind))
    box = f" at {coordinates(near, scene)}" if answer(near).startswith("[") else ""
    step = f"Closest to it lies the {near.colour} {near.kind}{box}."
    question = rng.choice(wordings).format(call(everyday_noun(item.kind, rng)))
    return GenericQuestion(question, answer(near), "", (landmark, step))


def _nearest_colour(scene: Scene, rng: random.Random) -> GenericQuestion | None:
    return _nearest(scene, rng, _NEAREST_COLOUR, lambda near: near.colour)


def _nearest_kind(scene: Scene, rng: random.Random) -> GenericQuestion | None:
    return _nearest(scene, rng, _NEAREST_KIND, lambda near: near.kind)


def _nearest_box(scene: Scene, rng: random.Random) -> GenericQuestion | None:
    return _nearest(scene, rng, _NEAREST_BOX, lambda near: coordinates(near, scene))


_BUILDERS: dict[str, Callable[[Scene, random.Random], GenericQuestion | None]] = {
    "parity": _parity,
    "sum": _sum,
    "difference": _difference,
    "order": _order,
    "nearest_colour": _nearest_colour,
    "nearest_kind": _nearest_kind,
    "nearest_box": _nearest_box,
}
COMPOUND_KINDS: tuple[str, ...] = tuple(_BUILDERS)

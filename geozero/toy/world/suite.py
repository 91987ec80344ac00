"""The suite: questions about a toy scene whose answers take several steps, drawn so that guessing stays at chance.

Question types: parity of a sum, compared sums, difference, two-hop reference, order; and two-hop grounding. Each is a
function from a scene to all its `Candidate`s, listed in `TYPES`. `balanced` draws from the candidates of many scenes:
every cell of a type is drawn equally often, and a question's words say next to nothing about its answer.

Example: ("parity", "Is the number of ships and storage tanks together even?", "no").
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from geozero.common.errors import InputError
from geozero.toy.world.facts import plural
from geozero.toy.world.referring import CLEAR_LENGTH, POSITION_MARGIN, SIZE_MARGIN, area, centre
from geozero.toy.world.scene import COLOURS, KINDS, Scene, SceneObject

SUMS = range(1, 7)  # of two kinds, in parity questions
MARGINS = (1, 0, 2, -1, 3, -2)  # of a sum over a third kind, in compared sums; yes and no take turns
DIFFERENCES = range(1, 5)
ORDINALS = ("second", "third")
TARGETS = tuple(kind for kind in KINDS if kind != "vehicle")  # vehicles are too small to be located
MOST_SKEW = 1.5  # by how much an answer may lead the others among questions of the same words
EXTREMES = ("largest", "smallest", "leftmost", "rightmost", "topmost", "bottommost")


@dataclass(frozen=True)
class Candidate:
    """A question that a scene allows.

    Attributes:
        kind: its type, a key of `TYPES`.
        text: the question; in grounding the expression.
        answer: in grounding empty.
        cell: what `balanced` draws equally often, a member of the type's cells.
        stem: what the question asks about; within a stem no answer may lead.
        target: in grounding the index of the object into `scene.objects`.
    """

    kind: str
    text: str
    answer: str
    cell: str
    stem: str
    target: int | None = None


# --- the types --------------------------------------------------------------------------------------------


def parity(scene: Scene) -> Iterator[Candidate]:
    """Is the sum of two counts even, or odd?"""
    for first, second in itertools.permutations(KINDS, 2):
        total = scene.count(first) + scene.count(second)
        if total in SUMS:
            for word, remainder in (("even", 0), ("odd", 1)):
                text = f"Is the number of {plural(first)} and {plural(second)} together {word}?"
                yes = total % 2 == remainder
                yield Candidate("parity", text, _yes_no(yes), f"{total} {word}", f"{_pair(first, second)} {word}")


def compared_sums(scene: Scene) -> Iterator[Candidate]:
    """Are there more of two kinds together than of a third one, which is there?"""
    for first, second in itertools.permutations(KINDS, 2):
        for third in KINDS:
            margin = scene.count(first) + scene.count(second) - scene.count(third)
            if third not in (first, second) and scene.count(third) and margin in MARGINS:
                text = f"Are there more {plural(first)} and {plural(second)} together than {plural(third)}?"
                yes = margin > 0
                yield Candidate("compared_sums", text, _yes_no(yes), str(margin), f"{_pair(first, second)} {third}")


def difference(scene: Scene) -> Iterator[Candidate]:
    """How many more of one kind than of another one, both of which are there?"""
    for first, second in itertools.permutations(KINDS, 2):
        more = scene.count(first) - scene.count(second)
        if scene.count(second) and more in DIFFERENCES:
            text = f"How many more {plural(first)} than {plural(second)} are there?"
            yield Candidate("difference", text, str(more), str(more), f"{first} {second}")


def two_hop(scene: Scene) -> Iterator[Candidate]:
    """The colour of the object that is nearest to an extreme one."""
    for kind, extreme, landmark in _landmarks(scene):
        found = _nearest(scene, landmark, range(len(scene.objects)))
        if found is not None:
            colour = scene.objects[found].colour
            text = f"Of which colour is the object nearest to the {extreme} {kind}?"
            yield Candidate("two_hop", text, colour, colour, f"{extreme} {kind}")


def order(scene: Scene) -> Iterator[Candidate]:
    """The kind that is the second or third most frequent, where no other kind is as frequent."""
    counts = sorted(((scene.count(kind), kind) for kind in KINDS if scene.count(kind)), reverse=True)
    for rank, ordinal in enumerate(ORDINALS, start=1):
        if rank < len(counts) and sum(count == counts[rank][0] for count, _ in counts) == 1:
            kind = counts[rank][1]
            yield Candidate("order", f"Which kind is the {ordinal} most frequent?", kind, f"{ordinal} {kind}", ordinal)


def two_hop_grounding(scene: Scene) -> Iterator[Candidate]:
    """The one of several objects of a kind that is nearest to an extreme one of another kind."""
    objects = scene.objects
    for kind, extreme, landmark in _landmarks(scene):
        for target in TARGETS:
            rivals = [index for index, item in enumerate(objects) if item.kind == target]
            found = _nearest(scene, landmark, rivals) if target != kind and len(rivals) > 1 else None
            if found is not None and objects[found].length >= CLEAR_LENGTH * scene.size:
                text = f"the {target} nearest to the {extreme} {kind}"
                yield Candidate("two_hop_grounding", text, "", target, text, found)


def _pair(first: str, second: str) -> str:
    return " ".join(sorted((first, second)))


def _yes_no(yes: bool) -> str:
    return "yes" if yes else "no"


def _landmarks(scene: Scene) -> Iterator[tuple[str, str, int]]:
    """(kind, extreme, index) of the objects that lead their kind of several by a margin."""
    for kind in KINDS:
        own = [index for index, item in enumerate(scene.objects) if item.kind == kind]
        if len(own) < 2:
            continue
        for extreme in EXTREMES:
            values = sorted(((_extent(scene, scene.objects[i], extreme), i) for i in own), reverse=True)
            least = math.log(SIZE_MARGIN) if extreme in ("largest", "smallest") else POSITION_MARGIN
            if values[0][0] - values[1][0] >= least:
                yield kind, extreme, values[0][1]


def _extent(scene: Scene, item: SceneObject, extreme: str) -> float:
    """How far an object is what the word says; differences are shares of the side, of sizes their log ratio."""
    if extreme in ("largest", "smallest"):
        return math.log(area(item)) * (1 if extreme == "largest" else -1)
    x, y = centre(item, scene.size)
    return {"leftmost": -x, "rightmost": x, "topmost": -y, "bottommost": y}[extreme]


def _nearest(scene: Scene, landmark: int, others: Iterable[int]) -> int | None:
    """The object nearest to another one by its middle, with a margin, and by the gap between the boxes, too."""
    at = scene.objects[landmark]
    found = sorted(
        (math.dist(centre(at, scene.size), centre(scene.objects[i], scene.size)), i) for i in others if i != landmark
    )
    if not found or (len(found) > 1 and found[1][0] - found[0][0] < POSITION_MARGIN):
        return None
    gaps = {i: _gap(at, scene.objects[i]) for _, i in found}
    return found[0][1] if gaps[found[0][1]] == min(gaps.values()) else None


def _gap(one: SceneObject, other: SceneObject) -> float:
    """Distance between two boxes, px."""
    a, b = one.box, other.box
    return math.hypot(max(a[0] - b[2], b[0] - a[2], 0.0), max(a[1] - b[3], b[1] - a[3], 0.0))


@dataclass(frozen=True)
class Type:
    """A question type: its candidates in a scene, and the cells that are drawn equally often.

    Neighbouring cells have different answers, so that answers are even whatever the number of questions.
    """

    candidates: Callable[[Scene], Iterator[Candidate]]
    cells: tuple[str, ...]
    n_answers: int


QUESTIONS: Mapping[str, Type] = {
    "parity": Type(parity, tuple(f"{total} {word}" for total in SUMS for word in ("even", "odd")), 2),
    "compared_sums": Type(compared_sums, tuple(map(str, MARGINS)), 2),
    "difference": Type(difference, tuple(map(str, DIFFERENCES)), len(DIFFERENCES)),
    "two_hop": Type(two_hop, COLOURS, len(COLOURS)),
    "order": Type(order, tuple(f"{ordinal} {kind}" for ordinal in ORDINALS for kind in KINDS), len(KINDS)),
}
EXPRESSIONS: Mapping[str, Type] = {"two_hop_grounding": Type(two_hop_grounding, TARGETS, 1)}


# --- the draw ---------------------------------------------------------------------------------------------


def balanced(
    scenes: Iterable[Scene], types: Mapping[str, Type], n: int, rng: random.Random
) -> list[tuple[Scene, list[Candidate]]]:
    """n questions of each type, at most one of a type per scene; scenes that none is asked about are left out.

    Raises:
        InputError: the scenes end before all cells are full.
    """
    missing = {name: _quotas(one.cells, n) for name, one in types.items()}
    tallies: dict[str, dict[str, Counter[str]]] = {name: defaultdict(Counter) for name in types}
    found: list[tuple[Scene, list[Candidate]]] = []
    for scene in scenes:
        chosen = []
        for name, one in types.items():
            if missing[name].total():
                open_ones = [c for c in one.candidates(scene) if missing[name][c.cell]]
                drawn = _draw(open_ones, one.n_answers, tallies[name], rng)
                if drawn is not None:
                    missing[name][drawn.cell] -= 1
                    tallies[name][drawn.stem][drawn.answer] += 1
                    chosen.append(drawn)
        if chosen:
            found.append((scene, chosen))
        if not any(cells.total() for cells in missing.values()):
            return found
    short = ", ".join(f"{cells.total()} of {name}" for name, cells in missing.items() if cells.total())
    raise InputError(f"the scenes do not allow {n} questions of each type: missing {short}", hint="ask for fewer")


def _quotas(cells: Sequence[str], n: int) -> Counter[str]:
    return Counter({cell: n // len(cells) + (place < n % len(cells)) for place, cell in enumerate(cells)})


def _draw(
    candidates: Sequence[Candidate], n_answers: int, tallies: Mapping[str, Counter[str]], rng: random.Random
) -> Candidate | None:
    """A candidate whose answer is behind among the questions of the same words; None if all of them lead."""

    def lead(one: Candidate) -> float:
        return tallies[one.stem][one.answer] - tallies[one.stem].total() / n_answers if one.answer else 0.0

    behind = [(value, rng.random(), place) for place, c in enumerate(candidates) if (value := lead(c)) <= MOST_SKEW]
    return candidates[min(behind)[2]] if behind else None

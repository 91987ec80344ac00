"""Expressions that single out one object of a toy scene, by margins that leave no doubt."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from geozero.toy.world.scene import Scene, SceneObject

# Margins are shares of the image side: an expression is kept where its object fulfils it by at least this much
# and every other object of the kind misses it by as much.
POSITION_MARGIN = 0.03
SIZE_MARGIN = 1.15  # ratio of box areas between the largest (smallest) and the next
CLEAR_LENGTH = 14 / 96  # of the image side; smaller objects are referred to only if a scene has few others
ENOUGH = 2  # expressions, before small objects are left out

PARTS = tuple((row, column) for row in range(3) for column in range(3))  # thirds of the image, from the top left


@dataclass(frozen=True)
class Reference:
    """One object singled out. `form`: colour | kind | size | part | relation; what a form does not use is empty."""

    index: int
    form: str
    kind: str
    colour: str = ""
    extreme: str = ""  # largest | smallest
    part: tuple[int, int] = (0, 0)  # (row, column) of the thirds
    side: str = ""  # left | right | above | below
    landmark: tuple[str, str] = ("", "")  # colour and kind


def centre(item: SceneObject, size: int) -> tuple[float, float]:
    """The middle of the object's box as shares (x, y) of the image side."""
    return (item.box[0] + item.box[2]) / 2 / size, (item.box[1] + item.box[3]) / 2 / size


def area(item: SceneObject) -> float:
    """Area of the object's box, px²."""
    return (item.box[2] - item.box[0]) * (item.box[3] - item.box[1])


def part_of(item: SceneObject, size: int) -> tuple[int, int]:
    """(row, column) of the third of the image that holds the middle of the object's box."""
    x, y = centre(item, size)
    return min(2, int(y * 3)), min(2, int(x * 3))


def _part_score(item: SceneObject, size: int, part: tuple[int, int]) -> float:
    """How far inside (positive) or outside a part the object's middle lies; a share of the image side."""
    x, y = centre(item, size)
    inside = []
    for value, third in ((x, part[1]), (y, part[0])):
        low, high = third / 3 if third else -1.0, (third + 1) / 3 if third < 2 else 2.0
        inside.append(min(value - low, high - value))
    return min(inside)


def _side_score(item: SceneObject, landmark: SceneObject, size: int, side: str) -> float:
    (x, y), (lx, ly) = centre(item, size), centre(landmark, size)
    return {"left": lx - x, "right": x - lx, "above": ly - y, "below": y - ly}[side]


def _singles_out(target: int, rivals: list[int], score: Callable[[int], float]) -> bool:
    return score(target) >= POSITION_MARGIN and all(
        score(other) <= -POSITION_MARGIN for other in rivals if other != target
    )


def references_to(scene: Scene, index: int) -> list[Reference]:
    """Every expression of ours that fits this object and no other in the scene."""
    objects, size = scene.objects, scene.size
    item = objects[index]
    rivals = [i for i, other in enumerate(objects) if other.kind == item.kind]
    twins = [i for i in rivals if objects[i].colour == item.colour]
    found: list[Reference] = []
    if len(rivals) == 1:
        found.append(Reference(index, "kind", item.kind))
    if len(twins) == 1:
        found.append(Reference(index, "colour", item.kind, item.colour))
    if len(rivals) > 1:
        others = [area(objects[i]) for i in rivals if i != index]
        if area(item) >= SIZE_MARGIN * max(others):
            found.append(Reference(index, "size", item.kind, extreme="largest"))
        if area(item) * SIZE_MARGIN <= min(others):
            found.append(Reference(index, "size", item.kind, extreme="smallest"))
    part = part_of(item, size)
    if _singles_out(index, rivals, lambda i: _part_score(objects[i], size, part)):
        found.append(Reference(index, "part", item.kind, part=part))
    for landmark in objects:
        alone = sum((o.kind, o.colour) == (landmark.kind, landmark.colour) for o in objects) == 1
        if landmark.kind == item.kind or not alone:
            continue
        for side in ("left", "right", "above", "below"):
            if _singles_out(index, rivals, lambda i, m=landmark, s=side: _side_score(objects[i], m, size, s)):  # type: ignore[misc]
                found.append(
                    Reference(index, "relation", item.kind, side=side, landmark=(landmark.colour, landmark.kind))
                )
    return found


def draw_references(scene: Scene, rng: random.Random) -> list[Reference]:
    """One reference per object where one exists; forms drawn evenly. Small objects come last, if at all."""
    clear = CLEAR_LENGTH * scene.size
    order = sorted(range(len(scene.objects)), key=lambda i: scene.objects[i].length < clear)
    drawn: list[Reference] = []
    for index in order:
        if scene.objects[index].length < clear and len(drawn) >= ENOUGH:
            break
        found = references_to(scene, index)
        if found:
            form = rng.choice(sorted({reference.form for reference in found}))
            drawn.append(rng.choice([reference for reference in found if reference.form == form]))
    return drawn


_ROWS = ("upper", "middle", "lower")
_SIDES = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}


def expression(reference: Reference) -> str:
    """A reference in the evaluation's wording, as in "the ship to the left of the white building"."""
    if reference.form == "colour":
        return f"the {reference.colour} {reference.kind}"
    if reference.form == "size":
        return f"the {reference.extreme} {reference.kind}"
    if reference.form == "part":
        return f"the {reference.kind} in the {part_words(reference.part)} part"
    if reference.form == "relation":
        return f"the {reference.kind} {_SIDES[reference.side]} the {' '.join(reference.landmark)}"
    return f"the {reference.kind}"


def part_words(part: tuple[int, int]) -> str:
    """The evaluation's words for a part of the image, as in "upper left"."""
    row, column = part
    if part == (1, 1):
        return "central"
    if row == 1:
        return "left" if column == 0 else "right"
    return " ".join([_ROWS[row], ("left", "middle", "right")[column]])


def referring(scene: Scene, rng: random.Random) -> list[tuple[int, str]]:
    """(index into `scene.objects`, expression) pairs; each expression fits exactly one object of the scene."""
    return [(reference.index, expression(reference)) for reference in draw_references(scene, rng)]

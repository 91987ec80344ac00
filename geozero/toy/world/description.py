"""Free descriptions of a toy scene and everyday questions about it, for teaching the base model.

Nothing here uses the evaluation's wording (`language.vqa`, `captions`, `referring`): what a base learns from
these texts is to see and to look up, not the test's questions.

Example: description "A rural farmland scene. There are two red vehicles. I see one blue ship at the top left,
at [40, 85, 260, 310].", question "Is there any boat to be seen?", answer "yes".
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace

from geozero.tasks.boxes import format_box, to_model
from geozero.toy.world.facts import draw_comparison, draw_count, draw_presence, number, plural, with_article
from geozero.toy.world.referring import Reference, draw_references, part_of
from geozero.toy.world.scene import KINDS, SCENE_CLASSES, Scene, SceneObject

MOST_WORDS = 40
FEWEST_WORDS = 10

_ROWS = ("top", "middle", "bottom")
_COLUMNS = ("left", "middle", "right")


@dataclass(frozen=True)
class GenericQuestion:
    """A question, its answer, what it asks for (`kind`: presence | comparison | count | scene | land | colour |
    where | caption), and sentences in the descriptions' wording from which the answer follows."""

    question: str
    answer: str
    kind: str
    facts: tuple[str, ...]


# --- descriptions ------------------------------------------------------------------------------------------


def place_words(part: tuple[int, int]) -> str:
    """(row, column) of the thirds in the words of the descriptions: "top left", "centre", "bottom middle"."""
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
    """How many of a kind there are, with their colours and, for one or two of them, their places if requested.

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
    """The place of one object: its third of the image and its coordinates. `name` replaces colour and kind."""
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
    """Objects with a kind and colour that no other object has."""
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
        needed = rng.random() < detail * 0.3 or _words(sentences) < FEWEST_WORDS
        if needed and _words([*sentences, extra]) <= MOST_WORDS:
            sentences.append(extra)
    if rng.random() < 0.2:  # sometimes the place comes last
        sentences.append(sentences.pop(0))
    return " ".join(sentences)


def inventory(scene: Scene, rng: random.Random) -> str:
    """Every object with its colour and box, kind by kind and from left to right, as in "Ships: red at [1, 2, 3, 4]"."""
    kinds = [kind for kind in KINDS if scene.count(kind)]
    rng.shuffle(kinds)
    parts = []
    for kind in kinds:
        items = sorted((item for item in scene.objects if item.kind == kind), key=lambda item: item.box[0])
        listed = ", ".join(f"{item.colour} at {coordinates(item, scene)}" for item in items)
        parts.append(_sentence("{}: {}.", plural(kind), listed))
    return " ".join(parts) or "Nothing but land."


# --- everyday questions ------------------------------------------------------------------------------------

_SYNONYMS = {
    "building": ("building", "building", "house"),
    "vehicle": ("vehicle", "vehicle", "car"),
    "ship": ("ship", "ship", "boat"),
    "airplane": ("airplane", "airplane", "plane"),
    "storage tank": ("storage tank", "storage tank", "tank"),
}
_PRESENCE = (
    "Can you see any {} here?",
    "Is there any {} to be seen?",
    "Does this picture show some {}?",
    "Do you notice any {}?",
    "Does the scene contain a {}?",
    "Tell me whether a {} is visible.",
    "Could you spot a {} from above?",
    "Have you found any {}?",
    "Is any {} visible?",
    "Would you find at least one {}?",
    "Is some {} to be found here?",
)
_COUNT = (
    "What number of {} do you count?",
    "Count the {}.",
    "Tell me how many {} you see.",
    "Give the count of {}.",
    "How large is the number of {}?",
    "The count of {}, please?",
    "Say how often {} occur.",
)
_COMPARISON = {
    "more": ("Do {} outnumber {}?", "Do you see more {} than {}?", "Are {} more numerous than {}?"),
    "less": ("Are {} fewer than {}?", "Do you see fewer {} than {}?", "Does the picture show less {} than {}?"),
    "equal": (
        "Are there as many {} as {}?",
        "Do you count equally many {} and {}?",
        "Is the count of {} the same as that of {}?",
    ),
}
_SCENE = (
    "Which kind of place is this?",
    "What place do you see?",
    "Name the sort of place shown here.",
    "What type of land use is it?",
    "Say what this place is.",
    "Under which heading does this place fall?",
)
_LAND = (
    "Is this the town or the countryside, urban or rural?",
    "Urban or rural land?",
    "Does it look rural or urban?",
    "Would you call this place rural, or urban?",
    "Tell me if the land is urban or rural.",
)
_WHERE = (
    "Where is {}?",
    "Where do you see {}?",
    "Point out {} with a box.",
    "Show me {}.",
    "Mark {}.",
    "In which box lies {}?",
    "At what position is {}?",
    "Search for {}.",
    "Draw a box around {}.",
)
_COLOUR = ("What colour is {}?", "Tell me the colour of {}.", "Of what colour is {}?")
_CAPTION = (
    "What do you see?",
    "Say briefly what is here.",
    "What is in this picture?",
    "Sum the picture up.",
    "Tell somebody what is here.",
)
# Hints after a question: people state the form of answer they want in many ways, or not at all.
_CLOSED_HINTS = (
    "",
    "",
    "Keep it short.",
    "One word will do.",
    "Be brief.",
    "Just the word, please.",
    "Answer in a word or two.",
    "Say it in a short phrase.",
    "Respond with a single term.",
)
_COUNT_HINTS = (*_CLOSED_HINTS, "As a number.", "Just the number, please.")
_BOX_HINTS = (
    "",
    "Answer by a box [x1, y1, x2, y2].",
    "Write the box as [x1, y1, x2, y2].",
    "Use corners [x1, y1, x2, y2].",
    "Box: [x1, y1, x2, y2].",
)
_CAPTION_HINTS = ("", "", "Use a single sentence.", "Keep it short.", "A sentence will do.", "Write a sentence or two.")
_SIDES = {"left": "left of", "right": "right of", "above": "higher up than", "below": "lower down than"}
_EXTREMES = {"largest": "biggest", "smallest": "tiniest"}

# Shares of the kinds of question; "count" stands in for a kind that a scene does not allow.
_KIND_SHARES = {
    "presence": 0.20,
    "comparison": 0.20,
    "count": 0.10,
    "scene": 0.07,
    "land": 0.05,
    "colour": 0.05,
    "where": 0.28,
    "description": 0.05,
}
QUESTION_KINDS: tuple[str, ...] = tuple(_KIND_SHARES)


def everyday_noun(kind: str, rng: random.Random) -> str:
    """A kind, at times by an everyday synonym."""
    return rng.choice(_SYNONYMS[kind])


def hint(kind: str, rng: random.Random) -> str:
    """What a person may add to a question of this kind: the required form, for a scene the names to choose from."""
    if kind == "scene":
        names = list(SCENE_CLASSES.values())
        rng.shuffle(names)
        listed = ", ".join(names)
        return rng.choice(
            (
                "",
                f"Options: {listed}.",
                f"Pick from {listed}.",
                f"It is one out of {listed}.",
                f"Answer by one of: {listed}.",
            )
        )
    hints = {"where": _BOX_HINTS, "count": _COUNT_HINTS, "description": _CAPTION_HINTS}
    return rng.choice(hints.get(kind, _CLOSED_HINTS))


def everyday_question(scene: Scene, rng: random.Random, kind: str | None = None) -> GenericQuestion:
    """`generic_question`, sometimes with a hint about the form of the answer."""
    asked = generic_question(scene, rng, kind)
    addition = hint(asked.kind, rng)
    return replace(asked, question=rng.choice((" ", "\n")).join(filter(None, (asked.question, addition))))


def sentence_answer(asked: GenericQuestion, rng: random.Random) -> str:
    """The answer as a person would say it, never the bare word: a model writes so unless it was asked to be terse."""
    if asked.kind in ("presence", "comparison"):
        said = {"yes": ("Yes, I think so.", "Yes, it looks so."), "no": ("No, I do not.", "No, not here.")}
        return rng.choice(said[asked.answer])
    if asked.kind == "description":
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
        return GenericQuestion(rng.choice(_SCENE), SCENE_CLASSES[scene.scene_class], "scene", (opening(scene, rng),))
    if kind == "land":
        buildings = kind_sentence(scene, "building", rng, colours=False, places=False)
        return GenericQuestion(rng.choice(_LAND), scene.land, "land", (buildings, opening(scene, rng)))
    if kind == "description":
        text = describe(scene, rng, 0.3)
        return GenericQuestion(rng.choice(_CAPTION), text, "description", (text,))
    if kind == "where":
        references = draw_references(scene, rng)
        if references:
            return _where_question(scene, rng.choice(references), rng)
    if kind == "colour":
        lone = [item for item in scene.objects if scene.count(item.kind) == 1]
        if lone:
            item = rng.choice(lone)
            fact = kind_sentence(scene, item.kind, rng, colours=True, places=False)
            question = rng.choice(_COLOUR).format(f"the {everyday_noun(item.kind, rng)}")
            return GenericQuestion(question, item.colour, "colour", (fact,))
    counted = draw_count(scene, rng)
    fact = kind_sentence(scene, counted, rng, colours=False, places=False)
    question = rng.choice(_COUNT).format(plural(everyday_noun(counted, rng)))
    return GenericQuestion(question, str(scene.count(counted)), "count", (fact,))


def _presence_question(scene: Scene, rng: random.Random) -> GenericQuestion:
    coloured = rng.random() < 0.5
    kind, colour, yes = draw_presence(scene, rng, coloured)
    noun = f"{colour} {everyday_noun(kind, rng)}".strip()
    fact = kind_sentence(scene, kind, rng, colours=coloured, places=False)
    return GenericQuestion(rng.choice(_PRESENCE).format(noun), "yes" if yes else "no", "presence", (fact,))


def _comparison_question(scene: Scene, rng: random.Random) -> GenericQuestion:
    relation, first, second, yes = draw_comparison(scene, rng)
    question = rng.choice(_COMPARISON[relation]).format(
        plural(everyday_noun(first, rng)), plural(everyday_noun(second, rng))
    )
    facts = tuple(kind_sentence(scene, kind, rng, colours=False, places=False) for kind in (first, second))
    return GenericQuestion(question, "yes" if yes else "no", "comparison", facts)


def _where_question(scene: Scene, reference: Reference, rng: random.Random) -> GenericQuestion:
    item, noun = scene.objects[reference.index], everyday_noun(reference.kind, rng)
    question = rng.choice(_WHERE).format(f"the {refer(reference, noun)}")
    facts = [spot_sentence(scene, item, rng, refer(reference, reference.kind))]
    if reference.form == "relation":  # what it is related to comes first
        landmark = next(o for o in scene.objects if (o.colour, o.kind) == reference.landmark)
        facts.insert(0, spot_sentence(scene, landmark, rng))
    return GenericQuestion(question, coordinates(item, scene), "where", tuple(facts))


def refer(reference: Reference, noun: str) -> str:
    """A reference in everyday words, without its article."""
    if reference.form == "colour":
        return f"{reference.colour} {noun}"
    if reference.form == "size":
        return f"{_EXTREMES[reference.extreme]} {noun}"
    if reference.form == "part":
        return f"{noun} at the {place_words(reference.part)}"
    if reference.form == "relation":
        return f"{noun} {_SIDES[reference.side]} the {' '.join(reference.landmark)}"
    return f"only {noun}"

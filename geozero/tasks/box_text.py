"""Boxes in the text that a model writes: one grammar for the score, the reward, detection and `geozero predict`.

    box    = "[" number×4 "]" | "[" point point "]" | point point | named×4 | "<" number ">"×4 | location×4 | number×4
    point  = "[" number number "]"          named = ("x1" | "xmin" | "left" | …) [":" | "="] number
    marked = "<box>" box "</box>"  |  "<|box_start|>" box "<|box_end|>"  |  ("bbox_2d" | "box" | …) ":" box

Brackets are `[]`, `()` or `{}`, nested at will; between numbers stand commas, semicolons, dashes or white space. A
number has a sign, a point, an exponent or a unit (`px`, `%`), and is no part of a word. "bbox_2d", "T-72", what stands
in quotes or before a colon, and what `<ref>`, `<|object_ref_start|>` and `<p>` enclose are labels. The coordinates
stand as written; what they mean is a convention (`geozero.tasks.boxes`) and never guessed here.

Four numbers are x1, y1, x2, y2, unless their key or the text states another order: `box_2d` (Gemini: y first), `yxyx`,
`xywh`, `cxcywh`, "[ymin, xmin, ymax, xmax]", the head of a table. Ranges by axis ("x: [100, 500], y: [150, 650]") are a
box, and two points named as other corners than top left and bottom right are put in order. A slice ("[150:650,
100:500]") and what `<point>`, `<poly>` and `<quad>` hold is no box.

Marked boxes come first: where there are any, only they count; else those in brackets or with names; else bare numbers.
So a reference "[1]", a size "512x512" or a confidence beside a box does no harm. A text that breaks off holds the boxes
that were closed before.

`<loc0010>` (PaliGemma, in the order y, x, y, x) and `<loc_10>` (Florence-2) are read; Kosmos-2's `<patch_index_0044>`,
the cell of a grid, is not.
"""

from __future__ import annotations

import html
import math
import re
import unicodedata
from dataclasses import dataclass, field

from geozero.corpus.sample import Box
from geozero.tasks.box_orders import CORNERS, SIZES, corners_of, order_of, plain_name, stated_order

MAX_STRING = 400  # characters; what is quoted and longer is read as if it were not quoted
MAX_DEPTH = 50  # of brackets; deeper ones are passed over

_DIGITS = r"(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][-+]?\d++)?"
_SIGNED = rf"(?:(?<![\w.\])}}])[-+\u2212])?{_DIGITS}"
_UNIT = r"(?:\s?(?:px|pix|pixels?)\b|\s?%)?"
_TOKEN = re.compile(
    rf"""(?P<angle><\s*[-+\u2212]?{_DIGITS}\s*>)
    | (?P<location><loc_?\d{{1,4}}>)
    | (?P<shape><(?:points?|poly(?:gon)?|quad)\s[^<>]{{0,{MAX_STRING}}}>)
    | <(?P<tag>[/|]{{0,2}}[A-Za-z][\w.-]*\|?)>
    | (?P<open>[\[({{]) | (?P<close>[\])}}])
    | (?P<string>"(?:[^"\\\n]|\\.){{0,{MAX_STRING}}}+"|(?<!\w)'[^'\n]{{0,{MAX_STRING}}}+'(?!\w))
    | (?P<number>{_SIGNED}{_UNIT}(?![\w%])(?!\.\d))
    | (?P<word>[^\W\d](?:\w|[-'](?=\w))*+|\d[\w.]*+)
    | (?P<colon>[:=]) | (?P<bar>\|) | (?P<end>[;\n]) | (?P<comma>,) | (?P<other>[^\s\-\u2010-\u2015\u2192>*`])""",
    re.VERBOSE,
)
_NUMBER = re.compile(rf"\s*({_SIGNED}){_UNIT}\s*")
_LABEL_TAGS = {
    "ref": "</ref>",
    "p": "</p>",
    **{name: f"</{name}>" for name in ("point", "points", "poly", "polygon", "quad")},  # shapes that are no box
    "|ref|": "<|/ref|>",
    "|object_ref_start|": "<|object_ref_end|>",
}
_BOX_KEYS = ("box", "coord", "location", "position", "region", "rect", "xyxy", "xywh", "cxcywh", "yxyx")
_OTHER_KEYS: tuple[str, ...] = ("point", "size", "shape", "resolution", "color", "colour", "score", "conf")
_OTHER_KEYS += ("poly", "segm", "cent", "angle")
_JOINING = frozenset(("to", "and", "from", "at", "is", "of", "through", "until"))  # between numbers, not in a label
_NAMES = frozenset(name for scheme in (*CORNERS, *SIZES) for name in scheme)
_AXES = {f"{axis}{word}": axis for axis in "xy" for word in ("", "s", "range", "axis", "coords", "coordinates")}
_AXES |= {"horizontal": "x", "horizontally": "x", "vertical": "y", "vertically": "y"}
_NO_CORNER = frozenset(("center", "centre", "centered", "centred", "size", "keypoint", "keypoints", "line", "radius"))
_PLAIN = r"(?<![\d.])(\d{1,9}(?:\.\d{1,9})?)"
_TWO_RANGES = re.compile(  # "[100-500, 150-650]": of x and y, it seems, and no corners
    r"\s?[,;]\s?".join([rf"{_PLAIN}\s?(?:[-\u2013]|to)\s?{_PLAIN}"] * 2) + r"(?![\d.]|\s?-\s?\d)"
)
_CORNER_NAME = re.compile(r"(?:top|upper|bottom|lower)[\s_-]{0,3}(?:left|right)", re.IGNORECASE)
_MARKED, _BRACKETED, _BARE = range(3)


@dataclass(slots=True)
class BoxText:
    """What a text holds: its boxes in order, as written, and why there may be none.

    `empty`: it says that there is none, as `[]`. `malformed`: brackets hold neither one number, nor a point, nor a box.
    """

    boxes: list[Box]
    empty: bool
    malformed: bool


@dataclass(slots=True)
class _Group:
    """An open bracket, a box tag, or the whole text."""

    kind: str
    marked: bool = False
    ignored: bool = False
    key: str = ""
    blank: bool = True
    barred: bool = False  # after the bar of `{<x1><y1><x2><y2>|<angle>}`
    numbers: list[float] = field(default_factory=list)
    points: list[tuple[float, float]] = field(default_factory=list)
    named: dict[str, float] = field(default_factory=dict)


def parse_box(text: str) -> Box | None:
    """The one box that a text names, once or several times; None where there is none, or several different ones."""
    found = set(read_box_text(text).boxes)
    return found.pop() if len(found) == 1 else None


def parse_box_list(text: str) -> list[Box] | None:
    """Every box of a text, in its order; none for `[]`.

    None where it names neither a box nor `[]`, or where brackets hold something else than a box.
    """
    found = read_box_text(text)
    return None if found.malformed or not (found.boxes or found.empty) else found.boxes


def read_box_text(text: str) -> BoxText:
    """Every box that a text names, of the plainest kind that it has."""
    return _Reader(text).read()


class _Reader:
    """One pass over the tokens of a text, with a stack of open groups."""

    def __init__(self, text: str, order: tuple[str, ...] = ()) -> None:
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text)
        text = html.unescape(text) if "&" in text else text
        joined = "-" in text or "\u2013" in text or "to" in text
        self.text = _TWO_RANGES.sub(r"\1:\2,\3:\4", text) if joined else text
        self.found: tuple[list[Box], list[Box], list[Box]] = ([], [], [])
        self.top = _Group("text")
        self.stack = [self.top]
        self.key = ""  # the name whose value comes next
        self.no_corner = False  # after "center" and the like: a point is no corner
        self.after_word = False  # directly after a word that may be a label
        self.last: dict[str, int] = {}  # where the last label of each tag ends
        self.empty = self.malformed = False
        self.all_points: list[tuple[float, float]] = []  # outside brackets
        self.order = order or stated_order(self.text)
        corner = _CORNER_NAME.search(self.text) if "eft" in text or "ight" in text else None
        self.sorts_corners = corner is not None and plain_name(corner[0]) not in ("topleft", "upperleft")

    def read(self) -> BoxText:
        skip_to = 0
        for match in _TOKEN.finditer(self.text):
            if match.start() < skip_to:
                continue
            kind = match.lastgroup or ""
            after_word, self.after_word = self.after_word, False
            if kind == "tag":
                skip_to = self._tag(match)
            elif kind == "open":
                self._open(match[0])
            elif kind == "close":
                self._close(match[0])
            elif kind == "number":
                self._number(_float(match[0]), after_word, match.end() == len(self.text))
            elif kind in ("angle", "location"):
                self._mark(match[0], kind)
            elif kind == "string":
                self._string(match)
            elif kind == "word":
                self._word(match)
            else:
                self._punctuation(kind)
        return self._finish()

    def _finish(self) -> BoxText:
        for group in self.stack[1:]:  # what never closed: points in a box tag are whole, numbers may be cut
            if group.kind == "tag" and len(group.points) == 2 and not group.numbers:
                self._emit(self._between(*group.points), _MARKED)
        self._end_run()
        self._end_points()
        best = next((boxes for boxes in self.found if boxes), [])
        if not best and len(self.all_points) == 2:  # "from (1, 2) at the top left to (3, 4)"
            best = [self._between(*self.all_points)]
        marked = bool(self.found[_MARKED])
        return BoxText(best, self.empty, self.malformed and not marked)

    # --- tokens -------------------------------------------------------------------------------------------

    def _tag(self, match: re.Match[str]) -> int:
        """A tag: of a box, of a label (then where the label ends), or none of ours."""
        name = match["tag"]
        if name in _LABEL_TAGS:
            self._break()
            end = _LABEL_TAGS[name]
            if name not in self.last:
                self.last[name] = self.text.rfind(end)
            return self.text.find(end, match.end()) + len(end) if self.last[name] >= match.end() else 0
        bare = name.strip("/|").lower()
        closing = "/" in name or bare.startswith("end") or bare.endswith("_end")
        if "box" in bare or bare == "det":
            if closing:
                self._close("tag")
            elif len(self.stack) <= MAX_DEPTH:
                self._break()
                self.stack.append(_Group("tag", marked=True))
            self.key = ""
        else:
            self._break()
            self.key = bare if bare in _NAMES and not closing else ""  # "<x1>100</x1>"
        return 0

    def _open(self, bracket: str) -> None:
        parent, key, self.key = self.stack[-1], self.key, ""
        if parent is self.top:
            self._end_run()
        parent.blank = False
        if len(self.stack) > MAX_DEPTH:
            return
        marked = parent.marked or any(name in key for name in _BOX_KEYS)
        ignored = parent.ignored or (not marked and any(name in key for name in _OTHER_KEYS))
        self.stack.append(_Group(bracket, marked, ignored, key or (parent.key if parent.kind in "[(" else "")))

    def _close(self, bracket: str) -> None:
        if bracket == "tag":
            while len(self.stack) > 1 and self.stack[-1].kind != "tag":
                self.stack.pop()
        if len(self.stack) == 1:
            self._break()
            return
        if bracket != "tag" and self.stack[-1].kind == "tag":
            return  # a bracket that was opened before the tag
        group, self.key = self.stack.pop(), ""
        if group.ignored:
            return
        self.stack[-1].named.update(group.named)  # "(x1=1, y1=2), (x2=3, y2=4)"
        if (box := self._complete(self.stack[-1])) is not None:
            self._emit(box, _MARKED if group.marked else _BRACKETED)
            self.stack[-1].named.clear()
        elif group.numbers or group.points:
            self._value(group)
        elif group.blank and group.kind == "[":
            self.empty = True

    def _value(self, group: _Group) -> None:
        """What a closed group is: a box, a point of the group around it, a reference mark, or nothing known."""
        numbers, points, parent = group.numbers, group.points, self.stack[-1]
        if len(numbers) == 4 and not points:
            self._emit(corners_of(numbers, order_of(group.key) or self.order), _MARKED if group.marked else _BRACKETED)
        elif len(points) == 2 and not numbers:
            self._emit(self._between(*points), _MARKED if group.marked else _BRACKETED)
        elif len(numbers) == 2 and not points and group.key in _AXES:  # "x: [100, 500], y: [150, 650]"
            axis = _AXES[group.key]
            parent.named |= {f"{axis}1": numbers[0], f"{axis}2": numbers[1]}
            if (box := self._complete(parent)) is not None:
                self._emit(box, _MARKED if group.marked else _BRACKETED)
                parent.named.clear()
        elif len(numbers) == 2 and not points and parent is self.top and self.no_corner:
            return
        elif len(numbers) == 2 and not points:
            point = numbers[0], numbers[1]
            parent.points.append(point)
            if parent is self.top:
                self.all_points.append(point)
        elif len(numbers) != 1 or points:
            self.malformed = True

    def _number(self, value: float, after_word: bool, last: bool) -> None:
        group, key, self.key = self.stack[-1], self.key, ""
        group.blank = False
        if key in _NAMES:
            group.named[key] = value
            if (scheme := self._complete(group)) is not None and not (last and len(self.stack) > 1):
                self._emit(scheme, _MARKED if group.marked else _BRACKETED)
                group.named.clear()
        elif group.kind == "{" and key:
            return  # another field of an object: a confidence, a number of the image
        if key in _NAMES and group is not self.top:
            return
        if group is self.top:
            self._end_points()
        elif after_word:
            return  # "[ship 2, 1, 2, 3, 4]"
        if not group.barred:
            group.numbers.append(value)

    def _mark(self, token: str, kind: str) -> None:
        """`<10>`, four of which are a box wherever they stand; `<loc0010>`, whose order is y, x, y, x."""
        group = self.stack[-1]
        if group.barred:
            return
        if group is self.top and group.kind != kind:
            self._break()
            group.kind = kind
        group.blank = False
        digits = token.strip("<>").removeprefix("loc").removeprefix("_")
        group.numbers.append(_float(digits))
        group.marked = group.marked or group is not self.top
        if len(group.numbers) == 4 and (group is self.top or kind == "location"):
            a, b, c, d = group.numbers
            swapped = kind == "location" and not token.startswith("<loc_")
            self._emit((b, a, d, c) if swapped else (a, b, c, d), _MARKED)
            group.numbers.clear()

    def _string(self, match: re.Match[str]) -> None:
        content, group = match[0][1:-1], self.stack[-1]
        following = self.text[match.end() : match.end() + 8].lstrip()
        if following.startswith(":"):
            self.key = plain_name(content)
            group.blank = False
            return
        if number := _NUMBER.fullmatch(content):
            self._number(_float(number[1]), False, False)
            return
        key, self.key, group.blank = self.key, "", False
        if group is self.top:
            self._break()
        boxed = not key or any(name in key for name in _BOX_KEYS)
        if boxed and not group.ignored:
            marked = bool(key) or group.marked
            for box in _Reader(content.replace('\\"', " "), order_of(key) or self.order).read().boxes:
                self._emit(box, _MARKED if marked else _BRACKETED)

    def _word(self, match: re.Match[str]) -> None:
        group, word = self.stack[-1], match[0]
        group.blank = False
        name = plain_name(word)
        if name in _NAMES:
            self.key = name
        elif self.text[match.end() : match.end() + 5].lstrip(" `*").startswith((":", "=")):
            wanted = group.kind == "{" or name in _AXES or any(part in name for part in _BOX_KEYS)
            self.key = name if wanted else ""
        elif name not in _JOINING:
            self.after_word = True
        if name not in _JOINING:
            self.no_corner = name in _NO_CORNER
            if group is self.top:
                self._break()

    def _punctuation(self, kind: str) -> None:
        group = self.stack[-1]
        if kind == "bar":
            group.barred = len(group.numbers) == 4 and group is not self.top
        elif kind == "comma":
            self.key = ""
        elif kind == "end":
            if group is self.top and len(group.numbers) == 4:
                self._end_run()
        elif kind == "colon":
            if group is self.top and not self.key:
                self._end_run()
            elif group.kind in "[(" and group.numbers:  # "image[150:650, 100:500]"
                group.numbers.append(math.nan)
        elif group is self.top:
            self._break()

    # --- results ------------------------------------------------------------------------------------------

    def _break(self) -> None:
        """Something that no box holds: a run of bare numbers and a chain of points end."""
        if self.stack[-1] is self.top:
            self._end_run()
            self._end_points()

    def _end_run(self) -> None:
        numbers, self.top.numbers = self.top.numbers, []
        if len(numbers) == 4 and self.top.kind == "text":
            self._emit(corners_of(numbers, self.order), _BARE)
        self.top.kind = "text"

    def _between(self, a: tuple[float, float], b: tuple[float, float]) -> Box:
        """The box of two points, which are the top left and the bottom right unless the text names others first."""
        if self.sorts_corners:
            return min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])
        return *a, *b

    def _end_points(self) -> None:
        points, self.top.points = self.top.points, []
        if len(points) == 2:
            self._emit(self._between(*points), _BRACKETED)
        elif len(points) > 2:
            self.malformed = True

    def _emit(self, box: Box, tier: int) -> None:
        if all(map(math.isfinite, box)):
            self.found[tier].append(box)
        else:
            self.malformed = True

    @staticmethod
    def _complete(group: _Group) -> Box | None:
        named = group.named
        for a, b, c, d in CORNERS:
            if a in named and b in named and c in named and d in named:
                return named[a], named[b], named[c], named[d]
        for a, b, c, d in SIZES:
            if a in named and b in named and c in named and d in named:
                return named[a], named[b], named[a] + named[c], named[b] + named[d]
        return None


def _float(text: str) -> float:
    return float("".join(text.split()).strip("<>%pixels").replace("\u2212", "-"))

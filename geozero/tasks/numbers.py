"""Numbers in short answers: 3.5 is not 35, -5 is not 5, 5.0 is 5, 1-2 is not 12, and 1,234 is 1234.

A whole answer is a *quantity* where it is one number or one range, perhaps with a unit or the noun that is counted:

- digits: "5", "-5", "5.0", "1,234", "1e3"; a sign touches its digits, a comma groups three of them and is no decimal
  comma
- words: "zero" to "nine hundred and ninety-nine billion …", "a dozen", "half a dozen", "a hundred"; not "a few"
- ranges: "1-2", "1 to 2", "between 1 and 2", "from 1 to 2"
- units: "25m2", "25 m²", "25 square metres", "10 %", "10 percent"; any one or two other words are a noun: "5 ships"

Two quantities are the same where their numbers are, and their units where both have one: "5 ships" is 5 and not 5
planes, and nothing is converted. "none", "nothing", "zero" and "no ships" are 0; "no" alone answers another question.
What is hedged ("about 5", "~5", "5 or 6", "at least 5", "5+", "<5") is no quantity, and is compared as text; so are
fractions ("two thirds") and thousands grouped by spaces or points ("1 234", "1.234.567"). "exactly 3", "three (3)" and
"minus 3" are.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

_SMALL = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen",
)
_TENS = re.findall(r"\w+", "twenty thirty forty fifty sixty seventy eighty ninety")
_WORDS = {word: n for n, word in enumerate(_SMALL)} | {word: 10 * n for n, word in enumerate(_TENS, start=2)}
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 1_000_000, "billion": 1_000_000_000}
_UNITS = {
    "percent": "%",
    "per cent": "%",
    "²": "2",
    "^2": "2",
    "square ": "sq ",
    "kilometers": "km",
    "kilometres": "km",
    "kilometer": "km",
    "kilometre": "km",
    "meters": "m",
    "metres": "m",
    "meter": "m",
    "metre": "m",
    "sq km": "km2",
    "sq m": "m2",
    "hectares": "ha",
    "hectare": "ha",
    "pixels": "px",
    "pixel": "px",
}
_ATTACHED = frozenset(("%", "m", "m2", "km", "km2", "ha", "px", "cm"))  # written without a space
_SIGN = r"(?:(?<![\w.,)\]])[-+\u2212\u2013])?"
_DIGITS = re.compile(
    rf"{_SIGN}(?:(?:[1-9]\d{{0,2}}(?:,\d{{3}})+(?![\d,])|\d+)(?:\.\d+)?(?:e[-+]?\d{{1,3}}\b)?|(?<![\d.])\.\d+)"
)
_RANGE = re.compile(
    rf"(?:(?P<between>between )|from )?(?P<low>{_DIGITS.pattern})(?P<unit1>\s?[a-z%²^]*2?)"
    rf"(?(between)\s?and\s|\s?(?:[-\u2010-\u2015~]|to)\s?)(?P<high>{_DIGITS.pattern})(?P<unit2>.*)"
)
_NOT_A_NOUN = frozenset(
    re.findall(
        r"\w+",
        "or and to of per more less fewer plus minus at in on about least most than but out by from up over under not "
        "if as for a an the is are am pm x st nd rd th half halves third thirds quarter quarters fourth fourths fifth "
        "fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths hundredth hundredths pair pairs "
        "couple couples dozens hundreds thousands millions billions k mn bn mio tons lots maybe perhaps probably "
        "max min maximum minimum each score b "
        "possibly approximately approx roughly circa around almost nearly ish so yes no none never unsure",
    )
) | frozenset((*_WORDS, *_SCALES))
_NO_NOUN = (  # what after "no" does not say that there are 0 of it
    "more|less|fewer|longer|one|way|idea|clue|answer|comment|problem|information|info|data|details?|doubt|reason|need|"
    "matter|sign|evidence|indication|change|thanks?|thank|worries|guess|sorry|unsure|sir|madam|yes|no|not|none|never|maybe|"
    "ambiguity|question|response|result|limit|label|prediction|output|text|match|please|stop|wait|course|ofcourse|unclear|"
    "definitely|really|actually|clearly|absolutely|certainly|"
    "i|we|you|he|she|it|its|they|there|that|this|these|those|the|is|are|was|were|but|and|or|image|number|count|"
) + "|".join(_WORDS)
_NONE = re.compile(
    rf"(?:there (?:is|are) )?(?:none|nothing|zero|"
    rf"no (?!(?:{_NO_NOUN})\b)[a-z]+(?: (?!(?:but|or|and|yes|no|not|maybe|wait)\b)[a-z]+)?)"
)
_A_NUMBER = rf"(?=\.?\d|(?:{'|'.join(_WORDS)})\b)"
_COMPARISONS = (  # as the words that say the same
    (re.compile(rf"(?<!\S)(?:>=|=>|[\u2265\u2267\u2a7e])\s*{_A_NUMBER}", re.IGNORECASE), "at least "),
    (re.compile(rf"(?<!\S)(?:<=|=<|[\u2264\u2266\u2a7d])\s*{_A_NUMBER}", re.IGNORECASE), "at most "),
    (re.compile(rf"(?<!\S)>\s*{_A_NUMBER}", re.IGNORECASE), "more than "),
    (re.compile(rf"(?<!\S)<\s*{_A_NUMBER}", re.IGNORECASE), "less than "),
    (re.compile(rf"(?<!\S)[~\u2248\u223c\u2243\u00b1]\s*{_A_NUMBER}", re.IGNORECASE), "about "),
    (re.compile(rf"(\d|\b(?:{'|'.join(_WORDS)}))\+(?![\w+])", re.IGNORECASE), r"\1 or more"),
)
_COMPARED = re.compile("[<>=+~\u00b1\u223c\u2243\u2248\u2264-\u2267\u2a7d\u2a7e]")
_GROUPED = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:[\u00a0\u202f\u2009'\u2019]\d{3})+(?![\d'\u2019])")  # 1'234
_EXACTLY = re.compile(r"(?:exactly|precisely|only|just) ")
_MINUS = re.compile(r"(?:minus|negative) ")
_TWICE = re.compile(r"([^()]+) \(([^()]+)\)?(?P<rest>(?: [^()]*)?)")  # "three (3) ships"
_BULLET = re.compile(r"^(?:[-\u2022]\s+|\.+(?!\d))+")
_EDGES = " \t\r\n,;:!?*`\"'()[]{}_~\u3002\u200b\ufeff"
MAX_LENGTH = 200  # characters; a longer answer is no quantity


class Quantity(NamedTuple):
    """A number (`low` equals `high`) or a range, and its unit, "" where there is none."""

    low: Decimal
    high: Decimal
    unit: str

    @property
    def number(self) -> float | None:
        """The number; None for a range."""
        return float(self.low) if self.low == self.high else None

    def __str__(self) -> str:
        unit = self.unit if self.unit in _ATTACHED or not self.unit else f" {self.unit}"
        ends = [f"{_plain(value)}{unit}" for value in dict.fromkeys((self.low, self.high))]
        return " to ".join(ends)


@lru_cache(maxsize=65_536)
def quantity(text: str) -> Quantity | None:
    """The number or range that a whole answer is; None where it is something else."""
    if len(text) > MAX_LENGTH:
        return None
    bare = " ".join(_BULLET.sub("", spelled_out(text).lower().strip(_EDGES)).split()).rstrip(". ")
    bare = _EXACTLY.sub("", bare, count=1) if _EXACTLY.match(bare) else bare
    if negative := _MINUS.match(bare):
        found = quantity(bare[negative.end() :])
        return (
            None
            if found is None or found.number is None or found.low < 0
            else found._replace(low=-found.low, high=-found.high)
        )
    if (twice := _TWICE.fullmatch(bare)) and (found := quantity(twice[1])) is not None:
        bare = twice[1] + twice["rest"] if found == quantity(twice[2]) else bare
    if (worded := _in_digits(bare)) is None:
        return None
    return _range(worded) or _single(worded)


def spelled_out(text: str) -> str:
    """A text in which comparisons are words (">3" is "more than 3") and thousands are grouped by commas, if at all."""
    if _COMPARED.search(text):
        for sign, words in _COMPARISONS:
            text = sign.sub(words, text)
    return _GROUPED.sub(lambda match: re.sub(r"\D", "", match[0]), text)


def same_quantity(first: str, second: str) -> bool:
    """Whether two answers are one quantity, or say of a number that it is 0."""
    a, b = quantity(first), quantity(second)
    if a is None or b is None:
        known = a or b
        return known is not None and known.number == 0 and says_none(second if a else first)
    return (a.low, a.high) == (b.low, b.high) and (a.unit == b.unit or not a.unit or not b.unit)


def says_none(text: str) -> bool:
    """Whether an answer says that there is nothing: "none", "no ships", "there are no ships"."""
    return _NONE.fullmatch(text.lower().strip(_EDGES + ".")) is not None


def number_of(text: str) -> float | None:
    """The number that an answer gives, 0 for "none"; None where it gives none, or a range."""
    found = quantity(text)
    return found.number if found else (0.0 if says_none(text) else None)


def count_of(text: str) -> float | None:
    """The number of a label that is a count: a number without a unit of measure; None for all else."""
    found = quantity(text)
    return found.number if found and found.unit not in _ATTACHED else None


def keep_numbers(text: str, strip_punctuation: re.Pattern[str]) -> str:
    """A text without the characters of a pattern, except those of its numbers; two numbers never run together."""
    parts: list[str] = []
    end = 0
    for match in _DIGITS.finditer(text):
        between = strip_punctuation.sub("", text[end : match.start()])
        parts += [between or (" " if parts else ""), _plain(_decimal(match[0]))]
        end = match.end()
    return "".join([*parts, strip_punctuation.sub("", text[end:])])


def _range(text: str) -> Quantity | None:
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    low, high = _decimal(match["low"]), _decimal(match["high"])
    units = {_unit(match["unit1"]), _unit(match["unit2"])} - {""}
    if len(units) > 1 or None in units or low > high:
        return None
    return Quantity(low, high, str(units.pop()) if units else "")


def _single(text: str) -> Quantity | None:
    match = _DIGITS.match(text)
    if match is None:
        return None
    unit = _unit(text[match.end() :])
    value = _decimal(match[0])
    return None if unit is None else Quantity(value, value, unit)


def _unit(text: str) -> str | None:
    """A unit in its short form, or a counted noun; None where words follow that make something else of the number."""
    attached, text = text[:1] != " ", text.strip()
    for long, short in _UNITS.items():
        text = text.replace(long, short)
    if text in _ATTACHED or not text:
        return text
    words = text.split()
    noun = len(words) <= 2 and all(word.replace("-", "").isalpha() for word in words)
    return text if noun and not attached and not _NOT_A_NOUN.intersection(words) else None


def _in_digits(text: str) -> str | None:
    """The text with its numbers in words as digits; None where it has no number."""
    if any(c.isdigit() for c in text):
        words = text.split()
        if len(words) > 1 and words[1] in _SCALES and (match := _DIGITS.fullmatch(words[0])):  # "3 million", "2 dozen"
            return " ".join([_plain(_decimal(match[0]) * _SCALES[words[1]]), *words[2:]])
        return text
    words = text.replace("-", " ").split()
    out: list[str] = []
    while words:
        value, used = _worded(words)
        out.append(str(value) if used else words[0])
        words = words[used or 1 :]
    joined = " ".join(out)
    return joined if any(c.isdigit() for c in joined) else None


def _worded(words: list[str]) -> tuple[int, int]:
    """The number that words begin with, and how many of them it takes; 0 of them where they begin with none."""
    if words[:3] == ["half", "a", "dozen"]:
        return 6, 3
    total = current = used = 0
    if words[0] in ("a", "an") and len(words) > 1 and words[1] in _SCALES:
        current, used = 1, 1
    while used < len(words):
        word = words[used]
        if word in _WORDS:
            value = _WORDS[word]
            if current % 10 or (current % 100 and value >= 10) or (current and not value):
                break
            current += value
        elif word in _SCALES and current:
            scale = _SCALES[word]
            if scale >= 1000:
                total, current = total + current * scale, 0
            else:
                current *= scale
        elif word != "and" or not (current >= 100 or total) or used + 1 == len(words) or words[used + 1] not in _WORDS:
            break
        used += 1
    return total + current, used


def _decimal(text: str) -> Decimal:
    return Decimal(text.replace(",", "").replace("\u2212", "-").replace("\u2013", "-"))


def _plain(value: Decimal) -> str:
    """All digits without an exponent, 5.0 as 5, -0 as 0."""
    text = f"{value:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return text if value else "0"

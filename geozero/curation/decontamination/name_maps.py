"""Name maps: which images of different data sets are one image, or one place, by their names alone.

An image's key is `set/…/stem`. Two tables turn it into names that all sets share: SETS says which family a set (or a
part of a repackaging set) takes its images from, and RULES how file names of that family are read. A key that no rule
matches stays as it is. A new pair of sets is one more line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from geozero.sources.readers.class_names import UCM

# Data sets that share images with others → the family of names that they belong to.
SETS = {
    "aid": "aid",
    "rsicd": "aid",
    "resisc45": "resisc45",
    "nwpu_captions": "resisc45",
    "ucm": "ucm",
    "ucm_captions": "ucm",
    "sydney_captions": "sydney",
    "dior_rsvg": "dior",
    "rsvqa_lr": "rsvqa_lr",
    "rsvqa_hr": "rsvqa_hr",
    "rsvg": "rsvg",
    "fmow": "fmow",
    "vrsbench": "patches",
    "eurosat": "eurosat",
    "whu_rs19": "whu_rs19",
}
# Sets made of other sets' images: the second part of a key names that set. `released` is the authors' own release.
REPACKAGED = ("vhm", "skyeye", "released")
# That part as distributors write it (letters and digits only, typos included) → the family.
PARTS = {
    "aid": "aid",
    "rsicd": "aid",
    "resisc45": "resisc45",
    "nwpuresisc45": "resisc45",
    "nwpu": "resisc45",
    "nwpucaptions": "resisc45",
    "ucm": "ucm",
    "ucmerced": "ucm",
    "ucmercedlanduse": "ucm",
    "ucmcaptions": "ucm",
    "sydney": "sydney",
    "sydneycaptions": "sydney",
    "dior": "dior",
    "diorrsvg": "dior",
    "doirrsvg": "dior",
    "rsvqalr": "rsvqa_lr",
    "rsvqahr": "rsvqa_hr",
    "rsvg": "rsvg",
    "fmow": "fmow",
    "fmowrgb": "fmow",
    "dota": "dota",
    "dotav2": "dota",
    "vrsbench": "patches",
    "eurosat": "eurosat",
    "whurs19": "whu_rs19",
}
# Sets whose images no other set shows, as far as we know: there is nothing to map.
UNSHARED = ("nasc_tg2", "siri_whu", "neon")
_PER_CLASS = 100


def _ucm_number(number: str) -> str:
    """UCM-Captions numbers UCM's images consecutively: `n.tif` belongs to class (n-1)//100 in alphabetical order (seen
    in the data). That it is image (n-1)%100 of that class is inferred."""
    place, order = divmod(int(number) - 1, _PER_CLASS)
    return f"ucm/{UCM[place]}{order:02}" if 0 <= place < len(UCM) else f"ucm_captions/{number}"


@dataclass(frozen=True, slots=True)
class Rule:
    """How a family's file name is read.

    `stem` matches the whole file name without suffix, in lower case; `names` are the image's names among all
    sets, with the groups of the match filled in, or a function of the first group. `sure` is False where the map is
    inferred and was not seen in the data.
    """

    family: str
    stem: str
    names: tuple[str, ...] | Callable[[str], str]
    sure: bool = True


RULES = (
    # RSICD holds all of AID by file name, at another size
    Rule("aid", r"([a-z]+_\d+)", ("aid/{0}",)),
    Rule("aid", r"(\d+)", ("rsicd/{0}",)),
    # NWPU-Captions: RESISC45's images, same class, same file name
    Rule("resisc45", r"([a-z_]+_\d+)", ("resisc45/{0}",)),
    Rule("ucm", r"([a-z]+\d\d)", ("ucm/{0}",)),
    Rule("ucm", r"0*(\d{1,4})", _ucm_number, sure=False),
    Rule("sydney", r"0*(\d{1,3})", ("sydney/{0}",)),
    Rule("dior", r"(\d{5})", ("dior/{0}",)),
    Rule("dota", r"(p\d+)(?:_.*)?", ("dota/{0}",)),
    # VRSBench: patches of DIOR's and DOTA's images; those of one image overlap, so they count as one
    Rule("patches", r"(\d{5})_\d+", ("dior/{0}",)),
    Rule("patches", r"(p\d+)_\d+", ("dota/{0}",)),
    Rule("rsvqa_lr", r"(\d+)", ("rsvqa_lr/{0}",)),
    Rule("rsvqa_hr", r"(\d+)", ("rsvqa_hr/{0}",)),
    Rule("rsvg", r"(.+)", ("rsvg/{0}",)),
    Rule("eurosat", r"([a-z]+_\d+)", ("eurosat/{0}",)),
    Rule("whu_rs19", r"([a-z]+_?\d+)", ("whu_rs19/{0}",)),
    # fMoW: a sequence shows one place at several times, as rgb and msrgb; its number is counted anew in each split, and
    # who repackages an image does not say from which split it is: then it counts as of both
    Rule("fmow", r"(.+_\d+)_\d+_(?:ms)?rgb", ("fmow/train/{0}", "fmow/val/{0}")),
)
_COMPILED: dict[str, list[tuple[Rule, re.Pattern[str]]]] = {}
for _rule in RULES:
    _COMPILED.setdefault(_rule.family, []).append((_rule, re.compile(_rule.stem)))

# Leaks that no map can remove; reported wherever these sets are used.
KNOWN = {
    "rsvqa_hr": "`test` shares regions with train in the official split, and the names do not say which; "
    "`--set test=test_phili` leaves the second test set alone, whose region is not trained on",
    "dior_rsvg": "the official split is by object: images that train and test share are removed from train",
    "ucm_captions": "573 of 1,050 test sentences also appear in train, word for word, about other images: captions are "
    "scored on sentences that were seen",
    "ucm": "the order of UCM-Captions' numbers within a class is inferred; near duplicates are found by their looks",
    "skyeye": "repackages other sets; `vg/rsvg.json` and `UCMvqa.json` name no split, so that only names and looks can "
    "identify test images",
    "fmow": "several images show one place: a place that is evaluated on is left out of train with all its images",
    "vhm": "repackages other sets; an image of fMoW counts as of its train and of its val part",
}


def names_of(image_key: str) -> tuple[str, ...]:
    """The names under which an image is compared: keys that share a name show the same image or place."""
    return known_as(image_key)[0]


def known_as(image_key: str) -> tuple[tuple[str, ...], bool]:
    """`names_of`, and whether the map is certain."""
    data_set, _, rest = image_key.partition("/")
    family = SETS.get(data_set, "")
    part = ""
    if data_set in REPACKAGED:
        part, _, rest = rest.partition("/")
        family = PARTS.get("".join(c for c in part.lower() if c.isalnum()), "")
    name = rest.rpartition("/")[2].lower()
    for rule, pattern in _COMPILED.get(family, ()):
        if matched := pattern.fullmatch(name):
            if callable(rule.names):
                return (rule.names(matched[1]),), rule.sure
            names = tuple(one.format(*matched.groups()) for one in rule.names)
            if data_set == "fmow":  # its own keys do say the split
                names = tuple(one for one in names if one.startswith(f"fmow/{rest.partition('/')[0]}/"))
            return names or (image_key,), rule.sure
    return (image_key,), True

"""The suite's questions have the right answer by another path, and nothing but the scene tells it."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
import yaml
from paths import ROOT
from typer.testing import CliRunner

from geozero.cli.app import app
from geozero.common.errors import InputError
from geozero.corpus.store import Corpus
from geozero.curation.ingest.ingest import ingest
from geozero.evaluation.benchmark import benchmarks
from geozero.sources import get, modules, open_tree
from geozero.sources.base import Record
from geozero.toy.world import suite
from geozero.toy.world.layouts import SPLITS, world_sizes, write_world
from geozero.toy.world.scene import COLOURS, KINDS, Scene, SceneObject, sample_scene

KIND = "|".join(KINDS)
EXTREME = "largest|smallest|leftmost|rightmost|topmost|bottommost"
N = 120  # questions of each type
Drawn = list[tuple[Scene, suite.Candidate]]


def middle(item: SceneObject) -> tuple[float, float]:
    return (item.box[0] + item.box[2]) / 2, (item.box[1] + item.box[3]) / 2


def size_of(item: SceneObject) -> float:
    return (item.box[2] - item.box[0]) * (item.box[3] - item.box[1])


EXTENTS: Mapping[str, Callable[[SceneObject], float]] = {
    "largest": size_of,
    "smallest": lambda o: -size_of(o),
    "leftmost": lambda o: -middle(o)[0],
    "rightmost": lambda o: middle(o)[0],
    "topmost": lambda o: -middle(o)[1],
    "bottommost": lambda o: middle(o)[1],
}


def nearest(scene: Scene, extreme: str, kind: str, among: str | None) -> SceneObject:
    """The object nearest to the extreme one of a kind, read without any margin."""
    landmark = max((o for o in scene.objects if o.kind == kind), key=EXTENTS[extreme])
    others = [o for o in scene.objects if o is not landmark and among in (None, o.kind)]
    return min(others, key=lambda o: math.dist(middle(o), middle(landmark)))


def right_answer(scene: Scene, question: str) -> str:
    """The answer by reading the question, apart from how it was drawn."""
    count = Counter(o.kind for o in scene.objects)
    if match := re.fullmatch(rf"Is the number of ({KIND})s and ({KIND})s together (even|odd)\?", question):
        total = sum(o.kind in match.groups()[:2] for o in scene.objects)
        return "yes" if ("odd" if total % 2 else "even") == match[3] else "no"
    if match := re.fullmatch(rf"Are there more ({KIND})s and ({KIND})s together than ({KIND})s\?", question):
        return "yes" if count[match[1]] + count[match[2]] > count[match[3]] else "no"
    if match := re.fullmatch(rf"How many more ({KIND})s than ({KIND})s are there\?", question):
        return str(count[match[1]] - count[match[2]])
    if match := re.fullmatch(rf"Of which colour is the object nearest to the ({EXTREME}) ({KIND})\?", question):
        return nearest(scene, match[1], match[2], None).colour
    match = re.fullmatch(r"Which kind is the (second|third) most frequent\?", question)
    assert match, question
    return count.most_common()[("second", "third").index(match[1]) + 1][0]


@pytest.fixture(scope="module", params=[False, True], ids=["easy", "hard"])
def drawn(request: pytest.FixtureRequest) -> dict[str, Drawn]:
    """Questions by type."""
    scenes = (sample_scene(31_000_000 + i, hard=request.param) for i in itertools.count())
    found: dict[str, Drawn] = defaultdict(list)
    for types in (suite.QUESTIONS, suite.EXPRESSIONS):
        for scene, own in suite.balanced(scenes, types, N, random.Random(5)):
            assert len({c.kind for c in own}) == len(own)  # at most one of a type
            for candidate in own:
                found[candidate.kind].append((scene, candidate))
    return found


def test_every_type_is_asked_so_often(drawn: dict[str, Drawn]) -> None:
    expected = {"parity", "compared_sums", "difference", "two_hop", "order", "two_hop_grounding"}
    assert {kind: len(rows) for kind, rows in drawn.items()} == dict.fromkeys(expected, N)
    for rows in drawn.values():
        assert len({scene.seed for scene, _ in rows}) == N


@pytest.mark.parametrize("kind", suite.QUESTIONS)
def test_answers_follow_from_the_scene(drawn: dict[str, Drawn], kind: str) -> None:
    for scene, candidate in drawn[kind]:
        assert candidate.answer == right_answer(scene, candidate.text), candidate


def test_an_expression_singles_out_its_object(drawn: dict[str, Drawn]) -> None:
    for scene, candidate in drawn["two_hop_grounding"]:
        match = re.fullmatch(rf"the ({KIND}) nearest to the ({EXTREME}) ({KIND})", candidate.text)
        assert match and candidate.target is not None
        item = scene.objects[candidate.target]
        assert item is nearest(scene, match[2], match[3], match[1])
        assert scene.count(match[1]) > 1 and scene.count(match[3]) > 1 and item.length >= 14


@pytest.mark.parametrize(
    ("kind", "answers"),
    [("parity", 2), ("compared_sums", 2), ("difference", 4), ("two_hop", len(COLOURS)), ("order", len(KINDS))],
)
def test_the_most_common_answer_is_chance(drawn: dict[str, Drawn], kind: str, answers: int) -> None:
    tally = Counter(c.answer for _, c in drawn[kind])
    assert len(tally) == answers and set(tally.values()) == {N // answers}


@pytest.mark.parametrize("kind", suite.QUESTIONS)
def test_the_words_of_a_question_do_not_tell_its_answer(drawn: dict[str, Drawn], kind: str) -> None:
    """Nearly: what the words give away of 120 questions, told in the same questions."""
    by_text: dict[str, Counter[str]] = defaultdict(Counter)
    for _, candidate in drawn[kind]:
        by_text[candidate.stem][candidate.answer] += 1
    told = sum(max(tally.values()) for tally in by_text.values()) / N
    chance = 1 / len({c.answer for _, c in drawn[kind]})
    assert told <= chance + 0.2, told
    for tally in by_text.values():
        assert max(tally.values()) - tally.total() * chance <= suite.MOST_SKEW + 1


def test_sums_are_even_over_their_size(drawn: dict[str, Drawn]) -> None:
    """Else "few objects" would be a hint."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for _, candidate in drawn["parity"]:
        sums[candidate.cell.split()[0]][candidate.answer] += 1
    assert {tuple(sorted(tally.items())) for tally in sums.values()} == {(("no", 10), ("yes", 10))} and len(sums) == 6


def test_scenes_that_do_not_suffice_are_one_line() -> None:
    with pytest.raises(InputError, match=r"do not allow 40 questions of each type: missing \d+ of parity"):
        suite.balanced((sample_scene(i) for i in range(5)), suite.QUESTIONS, 40, random.Random(1))


# --- on disk ----------------------------------------------------------------------------------------------

SIZES = {"suite_vqa": {"train": 9, "val": 5, "test": 6}, "suite_vg": {"train": 7, "val": 3, "test": 4}}
TYPES = ("compared_sums", "difference", "order", "parity", "two_hop")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """The easy world with the sets of the demo beside the suite, and the hard one of the suite alone."""
    top = tmp_path_factory.mktemp("suite")
    few = world_sizes({"aid": 8, "rsvqa_lr": 2, "rsicd": 2, "dior_rsvg": 2}, val=1, test=1)
    write_world(top / "easy", seed=5, sizes=few | SIZES)
    write_world(top / "hard", seed=5, sizes=SIZES, hard=True)
    return {False: top / "easy", True: top / "hard"}


def records(name: str, root: Path) -> list[Record]:
    with open_tree(root) as tree:
        source = get(name)
        found = list(source.records(source.find(tree)))
    assert all(isinstance(one, Record) for one in found)
    return [one for one in found if isinstance(one, Record)]


def tally(rows: Iterable[Record]) -> dict[str, dict[str | None, int]]:
    found: dict[str, Counter[str | None]] = defaultdict(Counter)
    for row in rows:
        found[row.split][row.question_type] += 1
    return {split: dict(counts) for split, counts in found.items()}


def test_the_adapters_read_the_suite_beside_the_other_sets(worlds: dict[bool, Path]) -> None:
    easy, hard = worlds[False], worlds[True]
    assert tally(records("toy_suite_vqa", easy)) == {
        split: dict.fromkeys(TYPES, SIZES["suite_vqa"][split]) for split in SPLITS
    }
    assert tally(records("toy_suite_vg", easy)) == {
        split: {"two_hop_grounding": SIZES["suite_vg"][split]} for split in SPLITS
    }
    assert tally(records("toy_suite_vqa_hard", hard)) == {"test": dict.fromkeys(TYPES, 6)}
    assert tally(records("toy_suite_vg_hard", hard)) == {"test": {"two_hop_grounding": 4}}
    assert len(records("toy_rsvqa_lr", easy)) == 20 and len(records("toy_aid", easy)) == 10
    assert {r.image_key.split("/")[0] for r in records("toy_suite_vg_hard", hard)} == {"toy_suite_vg_hard"}
    assert modules("toy_suite_vg") == ("geozero.sources.mixed.toy_suite", "geozero.sources.toy")


def test_the_answers_on_disk_are_those_of_the_scenes_named_there(worlds: dict[bool, Path]) -> None:
    seeds: dict[bool, list[int]] = {}
    for hard, root in worlds.items():
        lists = {
            k: json.loads((root / f"SUITE_VQA/all_{k}.json").read_text())[k] for k in ("images", "questions", "answers")
        }
        named = [int(row["original_name"].removeprefix("scene_").removesuffix(".tif")) for row in lists["images"]]
        for question, answer in zip(lists["questions"], lists["answers"], strict=True):
            scene = sample_scene(named[question["img_id"]], hard=hard)
            assert answer["answer"] == right_answer(scene, question["question"])
        seeds[hard] = named
    assert len({*seeds[False], *seeds[True]}) == len(seeds[False]) + len(seeds[True])  # no scene twice


def test_no_image_is_in_two_splits(worlds: dict[bool, Path], tmp_path: Path) -> None:
    """By the stored bytes, over both sets and worlds."""
    where: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for name, hard in (("toy_suite_vqa", False), ("toy_suite_vg", False), ("toy_suite_vqa_hard", True)):
        ingest(name, worlds[hard], tmp_path / name)
        for sample in Corpus(tmp_path / name).samples():
            where[sample.image_id].add((name, sample.split))
    assert all(len(places) == 1 for places in where.values()) and len(where) > 30


@pytest.mark.parametrize(
    ("suite_of_params", "folders"), [(None, set()), ({"train": 4, "val": 4, "test": 4}, {"VQA", "VG"})]
)
def test_the_demo_s_world_has_the_suite_if_the_parameters_ask(
    suite_of_params: dict[str, int] | None, folders: set[str], tmp_path: Path
) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["toy"] |= {split: {"aid": 8} for split in SPLITS} | {"suite": suite_of_params}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    words = ["toy", "world", "--out", str(tmp_path / "toy"), "--params", str(tmp_path / "params.yaml")]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    found = {path.name for path in (tmp_path / "toy").iterdir()}
    assert found == {"AID", "world.json"} | {f"SUITE_{name}" for name in folders}


def test_the_command_renders_the_suite_alone(tmp_path: Path) -> None:
    words = ["toy", "suite", "--out", str(tmp_path / "s"), "--hard", "--test", "5"]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert {path.name for path in (tmp_path / "s").iterdir()} == {"SUITE_VQA", "SUITE_VG", "world.json"}
    assert tally(records("toy_suite_vg_hard", tmp_path / "s")) == {"test": {"two_hop_grounding": 5}}


def test_the_suite_has_its_benchmarks() -> None:
    names = {b.name for b in benchmarks().values()}
    assert {f"toy_suite_{kind}{hard}" for kind in ("vqa", "vg") for hard in ("", "_hard")} <= names

"""The tasks: which question is asked, what is taught, and what an answer earns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.sample import Sample, TaskName
from geozero.metrics.captions import longest_common_subsequence, rouge_l_f1, sentence_bleu
from geozero.tasks import SYSTEM_PROMPT, TASKS, get, messages
from geozero.tasks.boxes import CONVENTIONS, Convention
from geozero.tasks.text import words

CLASSES = ("Airport", "Bare Land", "Storage-Tanks")
GIVEN: dict[TaskName, dict[str, Any]] = {
    "scene_cls": {"answer": "Bare Land", "classes": CLASSES},
    "vqa": {"answer": "yes"},
    "caption": {"answer": "many planes", "references": ("many planes are parked", "two runways cross .", "planes")},
    "grounding": {"answer": "[10, 20, 50, 60]", "box": (10.0, 20.0, 50.0, 60.0)},
    "multiple_choice": {"question": "Which?\nA. Airport\nB. Bare Land\nC. a port", "answer": "Bare Land"},
    "detection": {"answer": "[[10, 20, 50, 60], [70, 20, 95, 45]]"},
}


def test_every_task_is_tried_here() -> None:
    assert TASKS.keys() - GIVEN.keys() == set(), "add a sample of it to GIVEN"


vocabulary = st.sampled_from(["a", "the", "plane", "planes", "parked", "runway", "near"])
sentences = st.lists(vocabulary, min_size=1, max_size=14)
anything = st.one_of(
    st.text(max_size=40),
    sentences.map(" ".join),
    st.lists(st.one_of(st.integers(-(10**400), 10**400), st.floats()), max_size=5).map(str),
    st.sampled_from(["yes", "Bare Land.", "[100, 200, 500, 600]", "[" + "9" * 400 + ", 1, 2, 3]", "\ud800", "\0"]),
)


def make(task: TaskName, number: int = 0, **changes: Any) -> Sample:
    values = {"question": "q", "width": 100, "height": 100, **GIVEN[task], **changes}
    return Sample(f"id{number}", task, "s", "train", "i", "k", **values)


def tagged(answer: str) -> str:
    return f"I look at the image. <answer>{answer}</answer>"


# --- questions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
def test_the_phrasing_goes_by_the_id_alone(task: TaskName) -> None:
    ids = [f"id{n}" for n in range(900)]
    asked = {i: get(task).question(i, "a ship", CLASSES) for i in ids}
    assert {i: get(task).question(i, "a ship", CLASSES) for i in reversed(ids)} == asked
    counts = Counter(asked.values())
    assert len(counts) == len(get(task).templates) and min(counts.values()) > 900 / len(counts) * 0.8
    assert all("{" not in question and "<image>" not in question for question in counts)


def test_questions_stay_as_they_are() -> None:
    """An answer store goes by the hash of the prompt: another phrasing makes every stored answer useless."""
    assert [get(task).question("id1", "a ship?", ("x", "y")) for task in TASKS] == [
        "Choose the scene class of the image from: x, y.\nAnswer with one class name.",
        "a ship?\nReply with one word or short phrase.",
        "Give a one-sentence caption of the image.",
        "Give the position of a ship?.\nAnswer with its bounding box [x1, y1, x2, y2].",
        "a ship?\nA. x\nB. y\nReply with the letter of the right option.",
        "Locate each a ship?.\n"
        "Answer with the list of their bounding boxes [[x1, y1, x2, y2], ...], or [] if there is none.",
    ]


@pytest.mark.parametrize("text", ["{classes}", "{0} and {text}", "100 % {", "<b>\\n"])
def test_a_text_is_put_in_as_it_stands(text: str) -> None:
    for task in [name for name, task in TASKS.items() if task.asks_text]:
        for number in range(6):
            assert text in get(task).question(f"id{number}", f" {text}\n", CLASSES)


def test_classes_are_listed_in_their_order() -> None:
    assert "Airport, Bare Land, Storage-Tanks" in get("scene_cls").question("id1", classes=CLASSES)


def test_messages() -> None:
    user = {"role": "user", "content": "<image>q"}
    assert messages(make("vqa"), "direct") == [user]
    assert messages(make("vqa"), "tagged") == [{"role": "system", "content": SYSTEM_PROMPT}, user]


def test_every_task_has_its_class() -> None:
    assert all(task.name == name for name, task in TASKS.items())
    tags = [tag for task in TASKS.values() for tag in task.tags]
    assert len(set(tags)) == len(tags)
    with pytest.raises(InputError, match=r"unknown task 'poetry' \(one of scene_cls, vqa, caption, grounding, "):
        get("poetry")


# --- target and reward ------------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("task", TASKS)
def test_what_is_taught_is_right(task: TaskName, convention: Convention) -> None:
    for number in range(12):
        sample = make(task, number)
        target = get(task).target(sample, convention)
        reward = get(task).reward(target, sample, "direct", convention)
        assert reward == get(task).reward(tagged(target), sample, "tagged", convention)
        assert get(task).reward(target, sample, "tagged", convention) == 0
        if task == "caption":
            assert target in sample.references and reward > 0.3
        else:
            assert get(task).succeeds(reward) and reward > 0.8


@pytest.mark.parametrize("task", TASKS)
@given(text=anything, convention=st.sampled_from(CONVENTIONS))
def test_any_text_earns_between_nothing_and_one(task: TaskName, text: str, convention: Convention) -> None:
    for completion, mode in ((text, "direct"), (text, "tagged"), (tagged(text), "tagged")):
        assert 0 <= get(task).reward(completion, make(task), mode, convention) <= 1  # type: ignore[arg-type]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("text", ["", " \n", "<answer></answer>", "no idea at all"])
def test_nothing_earns_nothing(task: TaskName, text: str) -> None:
    assert get(task).reward(text, make(task), "direct") == get(task).reward(tagged(text), make(task), "tagged") == 0


@pytest.mark.parametrize(
    ("task", "answer", "reward"),
    [
        ("vqa", "Yes.", 1),
        ("vqa", " YES \n", 1),
        ("vqa", "yes, there is", 0),
        ("vqa", "ye", 0),
        ("vqa", "...", 0),
        ("scene_cls", "bare land", 1),
        ("scene_cls", "Bare  Land.", 1),
        ("scene_cls", "bareland", 0),
        ("scene_cls", "Airport, Bare Land, Storage-Tanks", 0),
        ("grounding", "[100, 200, 500, 600]", 1),
        ("grounding", "It is at [100, 200, 500, 400].", 0.5),
        ("grounding", "[100, 200, 500]", 0),
        ("grounding", "[500, 600, 100, 200]", 0),
        ("grounding", "100, 200, 500, 600", 1),
        ("grounding", '[{"bbox_2d": [100, 200, 500, 600], "label": "ship 2"}]', 1),
    ],
)
def test_what_an_answer_earns(task: TaskName, answer: str, reward: float) -> None:
    assert get(task).reward(answer, make(task), "direct") == pytest.approx(reward, abs=1e-12)


def test_success() -> None:
    assert [get("vqa").succeeds(r) for r in (0.0, 0.99, 1.0)] == [False, False, True]
    assert [get("grounding").succeeds(r) for r in (0.0, 0.49, 0.5, 1.0)] == [False, False, True, True]
    assert get("caption").succeeds(1.0) is None


def test_a_box_that_is_not_there() -> None:
    sample = make("grounding", box=None)
    assert get("grounding").reward("[1, 2, 3, 4]", sample, "direct") == 0
    with pytest.raises(BadRecord, match="box_missing"):
        get("grounding").target(sample)


def test_every_reference_is_taught_to_somebody() -> None:
    taught = Counter(get("caption").target(make("caption", n)) for n in range(300))
    assert set(taught) == set(GIVEN["caption"]["references"]) and min(taught.values()) > 60


# --- captions beside plain implementations ----------------------------------------------------------------


def plain_lcs(a: Sequence[str], b: Sequence[str]) -> int:
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(st.lists(vocabulary, max_size=14), st.lists(vocabulary, max_size=14))
def test_the_longest_common_subsequence(a: list[str], b: list[str]) -> None:
    assert longest_common_subsequence(a, b) == plain_lcs(a, b) == longest_common_subsequence(b, a)


def test_a_long_common_subsequence() -> None:
    a = [str(n * n % 97) for n in range(300)]
    b = [str(n * 7 % 97) for n in range(300)]
    assert longest_common_subsequence(a, b) == plain_lcs(a, b) > 10


@given(sentences, st.lists(sentences, min_size=1, max_size=5))
def test_rouge_l_is_the_best_harmonic_mean(hypothesis: list[str], references: list[list[str]]) -> None:
    def f1(reference: list[str]) -> float:
        common = plain_lcs(hypothesis, reference)
        precision, recall = common / len(hypothesis), common / len(reference)
        return 2 * precision * recall / (precision + recall) if common else 0.0

    assert rouge_l_f1(hypothesis, references) == pytest.approx(max(map(f1, references)), abs=1e-12)


@given(sentences, st.lists(sentences, min_size=1, max_size=5))
def test_bleu_is_nltks_with_method_1(hypothesis: list[str], references: list[list[str]]) -> None:
    from nltk.translate import bleu_score

    theirs = bleu_score.sentence_bleu(references, hypothesis, smoothing_function=bleu_score.SmoothingFunction().method1)
    assert sentence_bleu(hypothesis, references) == pytest.approx(min(1.0, theirs), abs=1e-12)


@given(sentences, st.lists(sentences, min_size=1, max_size=4))
def test_a_caption_earns_the_mean_of_both(hypothesis: list[str], references: list[list[str]]) -> None:
    sample = make("caption", references=(*map(" ".join, references), " . "))
    expected = (rouge_l_f1(hypothesis, references) + sentence_bleu(hypothesis, references)) / 2
    text = " ".join(hypothesis).capitalize() + " ."
    assert words(text) == hypothesis
    assert get("caption").reward(text, sample, "direct") == pytest.approx(expected, abs=1e-12)

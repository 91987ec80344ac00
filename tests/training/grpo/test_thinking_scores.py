"""The forms of S_t against values worked out by hand."""

from __future__ import annotations

import math

import pytest
from reward_samples import make

from geozero.params import A2grpo
from geozero.training.grpo.objective import thinking_scores
from geozero.training.grpo.rewards import asked, thinking_rewards
from geozero.training.grpo.thinking_scores import THINKING_SCORES, Thought, coverage, named, novelty

SETTINGS = A2grpo(steps=1, thought_words=5, thought_words_max=50)


def test_the_words_that_name_what_is_asked() -> None:
    assert named("How many more ships than storage tanks are there?\nAnswer with a single word.") == {
        "ship", "storage", "tank",
    }  # fmt: skip
    assert named("Is it a rural or an urban area") == {"rural", "urban"}
    for nothing in ("Describe the image in one sentence.", "Give a one-sentence caption of the image.", ""):
        assert named(nothing) == frozenset()


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("Ships: two. Storage tanks: one.", 1.0),
        ("One ship lies here.", 1 / 3),
        ("tanks tanks tanks", 1 / 3),
        ("A river.", 0.0),
        ("", 0.0),
    ],
)
def test_coverage_is_the_share_of_them_in_the_thought(text: str, score: float) -> None:
    question = "How many more ships than storage tanks are there?"
    assert coverage(Thought.read(text, question), [], 40, 200) == pytest.approx(score)
    assert thinking_scores([text], form="coverage", question=question) == [pytest.approx(score)]


def test_coverage_of_what_names_nothing_is_length_and_long_thoughts_decay() -> None:
    assert coverage(Thought.read("ten words " * 5, "Describe the image in one sentence."), [], 40, 200) == 0.25
    long = Thought.read("ships " * 300, "Are there ships?")
    assert coverage(long, [], 40, 200) == pytest.approx(math.exp(-1))


def test_novelty_is_one_less_half_the_mean_similarity_to_the_right_thoughts() -> None:
    """Cosines: the first two share 2 of 3 words each (2/3), the third shares none with either."""
    texts = ["red ship here", "red ship there", "three airplanes landed"]
    assert thinking_scores(texts, form="novelty") == pytest.approx([1 - 0.5 / 3, 1 - 0.5 / 3, 1.0])
    assert thinking_scores(texts[:2], form="novelty") == [0.0, 0.0]  # fewer than three
    assert thinking_scores([*texts, "too short"], form="novelty")[3] == 0.0
    assert thinking_scores([texts[0]] * 3, form="novelty") == pytest.approx([0.5] * 3)


def test_novelty_counts_the_right_thoughts_of_the_whole_batch() -> None:
    batch: list[Thought] = []
    rows = [
        ("red ship here", True),
        ("red ship there", True),
        ("three airplanes landed", False),
        ("red ship hidden", True),
    ]
    batch += [Thought.read(text, right=right, batch=batch) for text, right in rows]
    assert [novelty(one, [], 40, 200) for one in batch] == pytest.approx([2 / 3, 2 / 3, 0.0, 2 / 3])


def test_the_reward_hands_question_and_batch_to_the_form() -> None:
    ships = make("vqa", question="Are there ships in the image?\nAnswer with one word.")
    other = make("vqa", "another", question="Are there tanks in the image?")
    completions = [
        "ships lie there <answer>yes</answer>",
        "nothing lies there <answer>yes</answer>",
        "ships lie there <answer>yes</answer>",
    ]
    rows = [ships.to_json(), ships.to_json(), other.to_json()]
    covered = SETTINGS.model_copy(update={"thinking_score": "coverage"})
    assert thinking_rewards(completions, rows, covered, "norm1000") == [1.0, 0.0, 0.0]
    novel = SETTINGS.model_copy(update={"thinking_score": "novelty"})
    expected = [1 - 0.5 * (1 / 3 + 1) / 2, 1 - 0.5 / 3, 1 - 0.5 * (1 / 3 + 1) / 2]
    assert thinking_rewards(completions, rows, novel, "norm1000") == pytest.approx(expected)
    wrong = ["ships lie there <answer>no</answer>", *completions[1:]]
    assert thinking_rewards(wrong, rows, novel, "norm1000") == [0.0, 0.0, 0.0]


def test_classes_that_a_question_offers_are_not_what_is_asked() -> None:
    sample = make(
        "scene_cls", question="Which is it: port, airport, storage tanks?", classes=("port", "airport", "storage tanks")
    )
    assert named(asked(sample)) == frozenset()
    assert named(asked(make("vqa", question="Are there ships?", classes=("yes", "no")))) == {"ship"}


def test_the_forms_have_their_names() -> None:
    assert list(THINKING_SCORES) == ["product", "length", "coverage", "novelty"]

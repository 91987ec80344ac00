"""The ablation's arms, its statistics on made-up outcomes, and that a stopped run goes on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from difficulty_world import make_corpus
from paths import ROOT
from reward_samples import make as make_sample
from stand_in_engine import one_source
from training_stage import make_params

from benchmarks.ablation import __main__ as line
from benchmarks.ablation import (
    arms,
    by_type,
    choose_beta,
    comparable,
    given,
    page,
    plan,
    selections,
    statistics,
    tracking,
)
from geozero.common.errors import InputError
from geozero.corpus.sample import Split
from geozero.corpus.store import Corpus, CorpusWriter, refer_images, subset
from geozero.tracking import Tracker
from geozero.workspace import Workspace

NOWHERE: dict[str, Any] = {"val_corpora": [], "corpora_with": lambda split: []}


def result(arm: str, seed: int, right: float, n: int = 200) -> dict[str, Any]:
    """Outcomes of one arm and seed: each task right with probability `right`, the same hard questions for all."""
    rng = np.random.default_rng(seed)
    difficulty = np.random.default_rng(0).random(n)
    values = {f"s{i}": float(d + rng.normal(0, 0.05) < right) for i, d in enumerate(difficulty)}
    outcomes = {"toy_aid_hard": {"scene_cls": values}, "neon": {"vqa": dict(list(values.items())[:50])}}
    thoughts = {"well_formed": 1.0, "thought_words": 20.0, "distinct": 0.5}
    modes = {mode: {"outcomes": outcomes, **thoughts} for mode in arms.arm_of(arm).modes}
    costs = {"answer_kl": 0.01, "guarded": 0, "seconds": 9.0, "cpu_seconds": 8.0}
    return {"arm": arm, "seed": seed, "run": f"{arm}-{seed}", "modes": modes, **costs}


@pytest.mark.parametrize("name", list(arms.ARMS))
def test_every_arm_is_a_valid_profile_that_differs(name: str) -> None:
    arm, params = arms.ARMS[name], make_params()
    changed = arms.settings_of(params, arm, seed=3)
    assert changed.seed == 3
    if arm.stage == "sft":
        assert changed.sft.steps == params.a2grpo.steps
    else:
        differs = {k for k, v in changed.a2grpo.model_dump().items() if v != params.a2grpo.model_dump()[k]}
        assert differs - {"guards", "probes"} == set(
            arm.changes
        )  # a change that is the profile's own value would compare nothing


def test_the_three_main_arms() -> None:
    assert [name for name, arm in arms.ARMS.items() if arm.main] == ["sft", "grpo", "a2grpo"]


@pytest.mark.parametrize("selection", ["random", "middle"])
def test_other_selections_have_as_many_samples_of_each_task(selection: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    raw = make_corpus(data / "geozero-raw", 40)
    samples = list(Corpus(raw).samples())
    subset(Corpus(raw), [s for s in samples if s.id < "c012" or "q000" <= s.id < "q005"], data / "geozero-hard", {})
    rates = {s.id: int(s.id[-2:]) % 9 / 8 for s in samples}
    columns = {"id": list(rates), "task": [s.task for s in samples], "p": list(rates.values())}
    pq.write_table(pa.table(columns), data / "pass_rates.parquet")
    workspace: Any = SimpleNamespace(hard=data / "geozero-hard", raw=raw)
    path = selections.corpus_of(workspace, selection, tmp_path / "out")
    chosen = list(Corpus(path).samples())
    assert Counter(s.task for s in chosen) == Counter(s.task for s in Corpus(workspace.hard).samples())
    before = (path / "manifest.json").stat().st_mtime_ns
    assert selections.corpus_of(workspace, selection, tmp_path / "out") == path
    assert (path / "manifest.json").stat().st_mtime_ns == before
    middle = [0.25 <= rates[s.id] <= 0.75 for s in chosen]
    assert all(middle) if selection == "middle" else 0 < sum(middle) < len(middle)


def test_a_selection_with_too_few_samples_is_filled_up() -> None:
    rows = [{"id": f"{i}", "task": "vqa" if i < 3 else "scene_cls", "p": i / 10} for i in range(10)]
    assert len(selections.choose(rows, {"vqa": 5, "scene_cls": 2}, "middle")) == 7
    assert selections.choose(rows, {"scene_cls": 3}, "middle") <= {"3", "4", "5", "6", "7"}


def test_a_real_difference_is_found_and_none_is_not_invented() -> None:
    results = [result("a2grpo", s, 0.7) for s in range(5)] + [result("grpo", s, 0.6) for s in range(5)]
    results += [result("sft", s, 0.7) for s in range(10, 15)]
    found = statistics.report(results)["splits"]["test_hard"]
    gap = found["grpo"]["a2grpo minus it"]
    assert gap["low"] > 0 and gap["difference"] == pytest.approx(0.1, abs=0.04) and gap["p_value"] < 0.01
    none = found["sft"]["a2grpo minus it"]
    assert none["low"] < 0 < none["high"] and none["p_value"] > 0.05
    low, high = found["a2grpo"]["interval"]
    assert low < found["a2grpo"]["mean"] < high
    assert "a2grpo minus it" not in found["a2grpo"]


def test_questions_are_paired() -> None:
    """Two arms that are right on the same questions differ by exactly 0, however few the questions."""
    results = [result(arm, s, 0.5, n=20) for arm in ("a2grpo", "grpo") for s in range(3)]
    gap = statistics.report(results)["splits"]["test_hard"]["grpo"]["a2grpo minus it"]
    assert (gap["difference"], gap["low"], gap["high"], gap["p_value"]) == (0, 0, 0, 1)


def test_arms_with_fewer_seeds_stand_beside_the_others() -> None:
    results = [result("a2grpo", s, 0.7) for s in range(4)] + [result("no_gate", 0, 0.3)]
    found = statistics.report(results)
    assert found["arms"]["no_gate"]["seeds"] == 1
    text = statistics.markdown(found)
    assert "A²GRPO without gate" in text and "## neon" in text and "## test_hard" in text


def test_outcomes_follow_the_strict_protocol() -> None:
    vqa = make_sample("vqa")
    assert arms.outcome({"pred": "Yes."}, vqa, "norm1000") == 1.0
    assert arms.outcome({"pred": ""}, vqa, "norm1000") == 0.0
    box = make_sample("grounding", box=(10.0, 10.0, 50.0, 50.0), answer="[10, 10, 50, 50]")
    assert arms.outcome({"pred": "[100, 100, 500, 300]"}, box, "norm1000") == 1.0  # IoU exactly one half
    assert arms.outcome({"pred": "[100, 100, 500, 290]"}, box, "norm1000") == 0.0


def test_sft_is_shown_in_both_modes() -> None:
    found = statistics.report([result("sft", 0, 0.5), result("a2grpo", 0, 0.5)])
    assert list(found["arms"]) == ["sft", "sft, tagged", "a2grpo"]
    assert found["arms"]["sft, tagged"]["what"] == "SFT continued for as many steps, asked tagged"


def test_seeds_are_paired_where_one_arm_has_fewer() -> None:
    """Seeds 3 and 4 of A²GRPO have no partner, so they say nothing about the difference."""
    results = [result("a2grpo", s, 0.5 if s < 3 else 0.9) for s in (1, 2, 3, 4)]
    results += [result("no_gate", s, 0.5) for s in (1, 2)]
    gap = statistics.report(results)["splits"]["test_hard"]["no_gate"]["a2grpo minus it"]
    assert (gap["difference"], gap["seeds"]) == (0, 2)


def test_guards_only_warn() -> None:
    guards = arms.settings_of(make_params(), arms.ARMS["a2grpo"], seed=1).a2grpo.guards
    assert guards.well_formed.limit is not None and guards.well_formed.action == "warn"


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("Ships: two. Land: sand. <answer>2</answer>", "Ships: two. <answer>2</answer>"),
        ("Ships: two. <answer>2</answer>", "Ships: two. <answer>2</answer>"),
        ("<answer>2. 3</answer>", "<answer>2. 3</answer>"),
    ],
)
def test_a_terse_thought_is_its_first_sentence(text: str, short: str) -> None:
    assert arms.terse(text) == short


def test_results_go_to_mlflow_once(tmp_path: Path) -> None:
    params = make_params()
    workspace: Any = SimpleNamespace(settings=params, tracker=Tracker(project=tmp_path))
    results = [result("sft", 1, 0.5), result("a2grpo", 1, 0.7)]
    (tmp_path / "runs/a2grpo-1").mkdir(parents=True)
    (tmp_path / "runs/a2grpo-1/metrics.jsonl").write_text('{"step": 1, "answer_reward": 0.5}\n')
    assert tracking.log(workspace, results, tmp_path / "runs", "sft") == 2
    assert tracking.log(workspace, results, tmp_path / "runs", "sft") == 0
    file = tmp_path / "ablation.md"
    file.write_text("# Ablation")
    tracking.log_page(workspace, [file], "sft")
    tracking.log_page(workspace, [file], "sft")
    runs = {run.info.run_name: run for run in tracking.experiment(workspace).search()}
    assert sorted(runs) == ["a2grpo-1", "report-sft", "sft-1"]
    right = results[1]["modes"]["tagged"]["outcomes"]["toy_aid_hard"]["scene_cls"].values()
    metrics = runs["a2grpo-1"].data.metrics
    assert metrics["test_hard/scene_cls"] == pytest.approx(np.mean(list(right)))
    assert metrics["answer_reward"] == 0.5 and runs["a2grpo-1"].data.params["seed"] == "1"
    assert runs["sft-1"].data.metrics["tagged/neon/mean"] == pytest.approx(metrics["neon/mean"], abs=0.5)


def test_the_page_shows_every_arm_and_split(tmp_path: Path) -> None:
    results = [result(arm, s, 0.5) for arm in arms.ARMS for s in (1, 2)]
    (tmp_path / "a2grpo-1").mkdir()
    (tmp_path / "a2grpo-1/metrics.jsonl").write_text(
        '{"step": 1, "answer_reward": 0.5}\n{"step": 2, "answer_reward": 1}\n'
    )
    found = statistics.report(results)
    page.write(found, results, tmp_path, "sft", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert all(about["what"] in text for about in found["arms"].values())
    assert "<h2>test_hard</h2>" in text and "<h2>neon</h2>" in text and text.count("<svg") == 3


def test_a_stopped_ablation_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trained: list[tuple[str, int]] = []

    def train(workspace: Any, arm: str, seed: int, start: Path, out: Path) -> Any:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append((arm, seed))
        directory = out / "runs" / f"{arm}-{seed}"
        directory.mkdir(parents=True)
        (directory / "metrics.jsonl").write_text('{"step": 1, "answer_kl": 0.5, "completions/mean_length": 10}\n')
        return SimpleNamespace(directory=directory, model=directory / "model", reused=False)

    def judge(workspace: Any, arm: str, *_: Any) -> dict[str, Any]:
        modes: dict[str, Any] = result(arm, 1, 0.5)["modes"]
        return modes

    monkeypatch.setattr(arms, "train", train)
    monkeypatch.setattr(arms, "judge", judge)
    workspace: Any = SimpleNamespace(newest=lambda stage: tmp_path, settings=make_params())
    names = ["grpo", "a2grpo", "no_gate"]
    with pytest.raises(KeyboardInterrupt):
        line.run(workspace, names, 2, 1, tmp_path / "out", None)
    trained.append(("killed", 0))
    found = statistics.report(line.run(workspace, names, 2, 1, tmp_path / "out", None))
    workspace = SimpleNamespace(settings=make_params(), tracker=Tracker(project=tmp_path), **NOWHERE)
    told = line.tell(workspace, tmp_path / "out", "sft")
    assert "A²GRPO without gate" in told and (tmp_path / "out/ablation.html").is_file()
    assert trained == [("grpo", 1), ("a2grpo", 1), ("no_gate", 1), ("killed", 0), ("grpo", 2), ("a2grpo", 2)]
    assert [found["arms"][arm]["seeds"] for arm in names] == [2, 2, 1]
    assert found["arms"]["grpo"]["answer_kl"] == 0.5
    assert found["arms"]["grpo"]["sampled_tokens"] == 10 * 2 * 4  # prompts per step × completions


def test_an_arm_with_another_beta() -> None:
    params = make_params(a2grpo={"beta": 0.2})
    assert arms.with_beta(params, "grpo", 0.5) == "grpo@0.5" and arms.with_beta(params, "grpo", 0.2) == "grpo"
    arm = arms.arm_of("grpo@0.5")
    assert arm.main and arm.what == "stock GRPO: R_a, KL on all tokens, β = 0.5"
    settings = arms.settings_of(params, arm, 1).a2grpo
    assert (settings.beta, settings.kl_tokens) == (0.5, "all")


def test_extra_arguments_of_the_profile_stay() -> None:
    params = make_params(a2grpo={"extra": {"max_grad_norm": 0.5}})
    extra = arms.settings_of(params, arms.ARMS["dr_grpo"], 1).a2grpo.extra
    assert extra == {"max_grad_norm": 0.5, "loss_type": "dr_grpo"}


def test_beta_is_chosen_for_each_arm_on_val_alone() -> None:
    params, grid = make_params(a2grpo={"beta": 0.2}), (0.0, 0.2, 0.5)
    todo = choose_beta.grid_runs(params, ["sft", "grpo", "no_constraint"], grid, 2)
    assert todo == [(f"grpo{b}", seed) for seed in (1001, 1002) for b in ("@0", "", "@0.5")]

    def one(arm: str, seed: int, right: float) -> dict[str, Any]:
        outcomes = {"val": {"vqa": {"a": right, "b": 0.0}}, "toy_suite_vqa": {"vqa": {"c": 1 - right}}}
        return {"arm": arm, "seed": seed, "modes": {"tagged": {"outcomes": outcomes}}}

    results = [one("grpo@0", 1001, 0.2), one("grpo", 1001, 0.8), one("grpo", 1002, 0.2), one("grpo@0.5", 1001, 0.5)]
    results += [one("a2grpo", 1001, 1.0)]  # not all of its grid yet
    chosen = choose_beta.choose(params, results, grid)
    assert list(chosen) == ["grpo"] and chosen["grpo"]["beta"] == 0.2  # a tie goes to the smaller one
    assert chosen["grpo"]["val"] == pytest.approx({"0": 0.1, "0.2": 0.25, "0.5": 0.25})
    chosen["grpo"]["beta"] = 0.5
    assert line.confirmed(params, ["sft", "grpo"], chosen) == ["sft", "grpo", "grpo@0.5"]
    assert not {seed for _, seed in line.planned(["grpo"], 10, 3)} & {seed for _, seed in todo}


def test_differences_by_type_are_paired_by_seed_and_image() -> None:
    """Two types; the arms differ in one of them, by half of its questions in every seed."""
    questions = {f"q{i}": ("parity" if i < 40 else "order", f"i{i // 2}") for i in range(80)}

    def one(arm: str, seed: int, gained: int) -> dict[str, Any]:
        values = {f"q{i}": float(i % 2 == 0 or i < gained) for i in range(80)}
        outcomes = {"toy_suite_vqa_hard": {"vqa": values}, "val": {"vqa": {"v": 1.0}}}
        return {"arm": arm, "seed": seed, "modes": {"tagged": {"outcomes": outcomes}}}

    results = [one("a2grpo", s, 40) for s in (1, 2, 3)] + [one("grpo", s, 0) for s in (2, 3, 4)]
    tables = by_type.all_tables(results, questions, {}, make_params())
    title = "A²GRPO against stock GRPO: R_a, KL on all tokens"
    assert list(tables) == [title]
    found = tables[title]["test_hard"]
    parity, order = found["parity"], found["order"]
    assert [parity[name] for name in ("ours", "theirs", "difference", "low", "high")] == [1, 0.5, 0.5, 0.5, 0.5]
    assert [parity[name] for name in ("seeds", "questions", "images")] == [2, 40, 20]
    assert [order[name] for name in ("difference", "p_value", "p_holm")] == [0, 1, 1] and parity["p_holm"] == 0
    text = "\n".join(by_type.markdown("title", {"test_hard": found}))
    assert "| parity | 40 | 2 | 100.0 | 50.0 | +50.0 | +50.0, +50.0 | 0.000 |  |  |  |" in text
    probed = {"rows": [{"question_type": "parity", "predicted": {"a2grpo_minus_grpo": 0.12}}, {"question_type": "x"}]}
    by_type.foresee(tables, probed)
    assert by_type.cells("parity", found["parity"])[-1] == "+12.0" and by_type.cells("order", found["order"])[-1] == ""


def test_how_many_think_by_type() -> None:
    def one(arm: str, thinking: bool) -> dict[str, Any]:
        mode = {"outcomes": {"x": {"vqa": {"a": 1.0, "b": 0.0}}}, "thinking": {"x": {"a": True, "b": thinking}}}
        return {"arm": arm, "seed": 1, **mode}

    found = by_type.compared([one("a2grpo", True)], [one("grpo", False)], {name: ("t", name) for name in "ab"})
    row = found["x"]["t"]
    assert (row["ours_think"], row["theirs_think"]) == (1.0, 0.5)
    assert by_type.cells("t", row)[-3:] == ["100", "50", ""]


def test_steps_until_an_arm_is_where_stock_grpo_ends() -> None:
    """Running means over 8 steps: stock GRPO ends with 0.425; the faster arm has it after its step 11."""
    slow = {"answer_rewards": [i / 20 for i in range(13)]}
    fast = {"answer_rewards": [i / 20 for i in range(2, 15)]}
    assert statistics.smoothed([slow])[-1] == pytest.approx(8.5 / 20)
    target = float(statistics.smoothed([slow])[-1])
    assert (statistics.steps_to([slow], target), statistics.steps_to([fast], target)) == (13, 11)
    assert statistics.steps_to([slow], 0.9) is None and statistics.steps_to([{}], target) is None


def test_each_arm_is_also_compared_at_its_own_beta() -> None:
    def one(arm: str) -> dict[str, Any]:
        return {"arm": arm, "seed": 1, "modes": {"tagged": {"outcomes": {"val": {"vqa": {"a": 1.0, "b": 0.0}}}}}}

    results = [one(arm) for arm in ("a2grpo", "grpo", "a2grpo@0.5", "grpo@0.05")]
    chosen = {"a2grpo": {"beta": 0.5}, "grpo": {"beta": 0.05}}
    questions = {name: ("t", name) for name in "ab"}
    titles = list(by_type.all_tables(results, questions, chosen, make_params(a2grpo={"beta": 0.2})))
    assert len(titles) == 2 and titles[1] == f"{titles[0]}, β chosen for each"
    assert len(by_type.all_tables(results[:3], questions, chosen, make_params(a2grpo={"beta": 0.2}))) == 1


def test_images_are_drawn_as_a_whole() -> None:
    """Ten questions about one image are no more than one: the interval is as wide as with one question an image."""

    def width(per_image: int) -> float:
        questions = {f"q{i:03}": ("t", f"i{i // per_image}") for i in range(40 * per_image)}
        rows = []
        for arm in ("ours", "theirs"):
            values = {q: float(arm == "ours" and int(q[1:]) // per_image % 4 == 0) for q in questions}
            rows.append([{"seed": s, "outcomes": {"x": {"vqa": values}}} for s in (1, 2)])
        found = by_type.compared(*rows, questions)["x"]["t"]
        assert found["difference"] == 0.25
        return found["high"] - found["low"]

    assert width(10) == pytest.approx(width(1), rel=0.1) and width(1) > 0.2


def write_splits(path: Path, source: str, sizes: dict[Split, int]) -> Path:
    """A corpus of one source with samples in several splits."""
    with CorpusWriter(path, {"made_by": "test"}) as writer:
        for split, n in sizes.items():
            corpus = Corpus(one_source(path.parent / f"{source}-{split}", f"{source}{split}", "vqa", n=n, split=split))
            refer_images(writer, corpus, {s.image_id for s in corpus.samples()})
            for sample in corpus.samples():
                assert writer.add(replace(sample, source=source))
    return path


def test_a_corpus_of_one_s_own_takes_the_place_of_the_project_s(tmp_path: Path) -> None:
    corpora = [write_splits(tmp_path / name, name, {"train": 4, "val": 2, "test": 3}) for name in ("one", "two")]
    workspace = Workspace(tmp_path / "params.yaml", make_params())
    found = given.given_corpora(workspace, corpora, tmp_path / "out")
    assert found.val_corpora == found.corpora_with("test") == [path.resolve() for path in corpora]
    assert found.hard == found.instruct == found.raw == tmp_path / "out/data/train"
    learned = list(Corpus(found.hard).samples())
    assert Counter(s.source for s in learned) == {"one": 4, "two": 4} and {s.split for s in learned} == {"train"}
    assert all(Corpus(found.hard).image_bytes(s.image_id) for s in learned)
    assert given.given_corpora(workspace, corpora[:1], tmp_path / "out").hard == corpora[0].resolve()
    hard = given.given_corpora(workspace, corpora[:1], tmp_path / "out", corpora[1])
    assert (hard.hard, hard.instruct) == (corpora[1], corpora[0].resolve())
    partly = write_splits(tmp_path / "three", "three", {"train": 4, "test": 3})
    with pytest.raises(InputError, match="no val samples"):
        given.given_corpora(workspace, [partly], tmp_path / "out")
    questions = by_type.questions_of(corpora)
    assert len(questions) == 10 and {kind for kind, _ in questions.values()} == {"presence", "count"}


def test_results_of_another_comparison_are_not_mixed_in(tmp_path: Path) -> None:
    corpora = [write_splits(tmp_path / name, name, {"train": 4, "val": 2, "test": 3}) for name in ("one", "two")]

    def check(corpus: Path, limit: int | None = None, **changes: Any) -> None:
        workspace = Workspace(tmp_path / "params.yaml", make_params(**changes))
        own = given.given_corpora(workspace, [corpus], tmp_path / "out")
        comparable.check_same(own, tmp_path / "out", tmp_path / "model", limit)

    check(corpora[0])
    check(corpora[0])
    with pytest.raises(InputError, match="the results there are of other limit in"):
        check(corpora[0], limit=5)
    with pytest.raises(InputError, match="of other questions, samples in"):
        check(corpora[1])
    with pytest.raises(InputError, match="of other parameters in"):
        check(corpora[0], a2grpo={"beta": 0.7})


def test_at_most_so_many_trainings_a_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def done(workspace: Any, model: Any, out: Path, limit: Any, item: tuple[str, int], splits: Any) -> dict[str, Any]:
        arms.result_path(out, *item).parent.mkdir(parents=True, exist_ok=True)
        arms.result_path(out, *item).write_text("{}")
        return {}

    monkeypatch.setattr(line, "finished", done)
    todo = line.planned(["grpo", "a2grpo", "no_gate"], 2, 1)
    workspace: Any = SimpleNamespace()
    for expected in (2, 4, 5, 5):
        line.run_all(workspace, todo, tmp_path, None, tmp_path, most=2)
        assert sum(arms.result_path(tmp_path, *item).is_file() for item in todo) == expected


def test_a_dry_run_tells_trainings_and_hours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plans = {
        "grpo": "hours\t2.5 (20 GPU hours), 9 s per step",
        "sft": "hours\tunknown on a CPU before a run of this shape",
    }

    def train(workspace: Any, arm: str, seed: int, start: Path, out: Path, dry_run: bool, on_line: Any) -> None:
        assert dry_run
        on_line("profile\tx")
        on_line(plans[arm])

    monkeypatch.setattr(plan, "train", train)
    path = arms.result_path(tmp_path, "grpo", 1)
    path.parent.mkdir()
    path.write_text("{}")
    workspace: Any = SimpleNamespace()
    assert list(plan.lines(workspace, line.planned(["sft", "grpo"], 3, 1), tmp_path, tmp_path)) == [
        "sft\t3 trainings\t0 done\thours unknown before a run of this shape",
        "grpo\t3 trainings\t1 done\t2.5 h each\t5 h",
        "in all\t5 trainings to do\t5 h and 3 trainings of unknown length, without evaluation",
    ]


def test_a_gpu_profile_is_planned_without_model_or_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The arms go through the stages' own launch path, which says what they would take."""
    corpus = write_splits(tmp_path / "one", "one", {"train": 4, "val": 2, "test": 3})
    words = ["x", "--params", str(ROOT / "profiles/qwen3-vl-2b-1gpu.yaml"), "--corpus", str(corpus), "--dry-run"]
    monkeypatch.setattr("sys.argv", [*words, "--arms", "grpo", "a2grpo", "--out", str(tmp_path / "out")])
    assert line.main() == 0
    lines = [text.split("\t") for text in capsys.readouterr().out.splitlines()]
    assert [cells[0] for cells in lines] == ["grpo", "a2grpo", "in all"]
    assert all(float(cells[3].split()[0]) > 0 for cells in lines[:2]) and lines[2][1] == "20 trainings to do"
    assert not (tmp_path / "out").exists()


def test_arms_that_need_a_selection_are_left_out_without_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    corpus = write_splits(tmp_path / "one", "one", {"train": 4, "val": 2, "test": 3})
    words = ["x", "--params", str(ROOT / "params.yaml"), "--corpus", str(corpus), "--dry-run", "--thinking"]
    monkeypatch.setattr("sys.argv", [*words, "--out", str(tmp_path / "out")])
    assert line.main() == 0
    named = [text.split("\t")[0] for text in capsys.readouterr().out.splitlines()][:-1]
    assert named == [name for name in arms.THINKING_ARMS if name not in ("sft_hard", "random")]
    monkeypatch.setattr("sys.argv", [*words, "--out", str(tmp_path / "out"), "--hard", str(corpus)])
    assert line.main() == 0 and "random" in capsys.readouterr().out

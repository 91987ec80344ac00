"""`geozero infer`: the authors' JSON in, records out; kills, other settings, missing images, broken items."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT, SUPPORT
from PIL import Image
from stand_in_infer import StandIn, echo
from weights import write_weights

from geozero import engines
from geozero.cli import app
from geozero.common import process
from geozero.common.errors import InputError
from geozero.engines.base import Completion, SamplingParams
from geozero.evaluation.evaluate import evaluate
from geozero.inference import answer_log
from geozero.inference.answer_log import AnswerLog
from geozero.inference.eval_json import parse_items, read_items
from geozero.inference.json_job import InferSummary, infer
from geozero.tasks import SYSTEM_PROMPT

N = 10


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    engine = StandIn(echo)
    monkeypatch.setattr(engines, "open_engine", engine.open)
    return engine


def item(number: int, image: str, answer: str = "yes", **more: Any) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"<image>\nQuestion {number}"}, {"from": "gpt", "value": answer}]
    return {"conversations": turns, "images": [image], **more}


class World:
    """A directory with images, a model's files and an evaluation JSON of N questions, two an image."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "images").mkdir(parents=True)
        for i in range(N // 2):
            Image.new("RGB", (40 + i, 20), (i, 0, 0)).save(path / "images" / f"{i}.png")
        self.model = path / "model"
        self.model.mkdir()
        (self.model / "config.json").write_text("{}")
        write_weights(self.model / "model.safetensors", b"weights")
        self.json, self.out = path / "eval.json", path / "answers.json"
        self.write([item(i, f"images/{i // 2}.png", str(i)) for i in range(N)])

    def write(self, items: Any) -> None:
        self.json.write_text(json.dumps(items))

    def items(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(self.json.read_text())
        return listed

    def infer(self, task: Any = "vqa", **options: Any) -> InferSummary:
        given = {"batchsize": 2, "progress": lambda line: None, **options}
        return infer(self.model, self.json, self.out, task, **given)

    def records(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(self.out.read_text())
        return listed

    def logs(self) -> list[Path]:
        return sorted(self.path.glob("answers.json.*.jsonl"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


# --- records ----------------------------------------------------------------------------------------------


def test_records_have_the_published_form_and_are_what_evaluate_reads(world: World, stand_in: StandIn) -> None:
    items = world.items()
    items[3] |= {"question_type": "presence", "width": 7, "height": 7}
    world.write(items)
    done = world.infer()
    assert (done.n, done.n_new, done.failed, done.n_cut, done.notes) == (N, N, [], 0, [])
    records = world.records()
    assert [r["pred"] for r in records] == [r["label"] for r in records] == [str(i) for i in range(N)]
    assert records[3] == {
        "id": "3",
        "raw_output": "I look. <answer>3</answer>",
        "pred": "3",
        "label": "3",
        "image_path": "images/1.png",
        "question": "Question 3",
        "width": 41,
        "height": 20,
        "question_type": "presence",
        "finish_reason": "stop",
        "n_tokens": 3,
    }
    assert "question_type" not in records[2]
    for protocol, name, wanted in (("strict", "accuracy", 1.0), ("official", "accuracy_percent", 100.0)):
        result = evaluate("vqa", protocol, world.out)
        assert (result["n"], result["metrics"][name], result["problems"]["n"]) == (N, wanted, 0)
    assert stand_in.n_closed == 1
    assert not (world.path / "answers.failed.json").exists()


def test_captions_keep_their_references_and_the_answer_is_never_shown(world: World, stand_in: StandIn) -> None:
    references = ["a road .", "one road and a tree ."]
    no_answer = item(1, "images/1.png", refs=references)
    no_answer["conversations"].pop()
    world.write([item(0, "images/0.png", "secret", refs=references), no_answer, item(2, "images/2.png", "secret")])
    world.infer("caption")
    assert [r["label"] for r in world.records()] == [references, references, ["secret"]]
    assert all(len(r.messages) == 1 and "secret" not in str(r.messages) for r in stand_in.asked)
    assert evaluate("caption", "strict", world.out)["n"] == 3


def test_grounding_records_carry_the_image_size(world: World, stand_in: StandIn) -> None:
    stand_in.rule = lambda request: "[0, 0, 500, 500]"
    world.write([item(i, f"images/{i}.png", f"[0, 0, {(40 + i) // 2}, 10]") for i in range(3)])
    world.infer("grounding")
    assert [(r["width"], r["height"]) for r in world.records()] == [(40, 20), (41, 20), (42, 20)]
    assert evaluate("grounding", "strict", world.out)["metrics"]["acc@0.5"] == 1.0
    assert evaluate("grounding", "official", world.out)["n"] == 3


def test_the_turns_before_the_last_are_context(world: World, stand_in: StandIn) -> None:
    turns = [
        {"from": "human", "value": "  <image>\n Which class? "},
        {"from": "gpt", "value": "river"},
        {"from": "human", "value": "Is there a ship 4"},
        {"from": "gpt", "value": "no"},
    ]
    world.write([{"conversations": turns, "images": ["images/0.png"], "system": "Answer in rhymes."}])
    world.infer(system=True)
    assert stand_in.asked[0].messages == [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": "<image>Which class?"},
        {"role": "assistant", "content": "river"},
        {"role": "user", "content": "Is there a ship 4"},
    ]
    assert world.records()[0]["label"] == "no"


def test_a_question_without_a_mark_sees_its_image_too() -> None:
    turns = [{"from": "human", "value": "What is it?"}, {"from": "gpt", "value": "a lake"}]
    (found,) = parse_items([{"conversations": turns, "images": ["a.png"]}], "vqa")
    assert found.messages(system=False) == [{"role": "user", "content": "<image>What is it?"}]


def test_ids_of_the_file_are_taken_only_if_they_name_one_item_each() -> None:
    assert [i.id for i in parse_items([item(0, "a", id=7), item(1, "a", id="b")], "vqa")] == ["7", "b"]
    assert [i.id for i in parse_items([item(0, "a", id="v1"), item(1, "a", id="v1")], "vqa")] == ["0", "1"]
    assert [i.id for i in parse_items([item(0, "a", id="v1"), item(1, "a")], "vqa")] == ["0", "1"]


# --- decoding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "sampling", "wanted"),
    [
        ("vqa", "greedy", SamplingParams(max_tokens=33)),
        ("vqa", "official", SamplingParams(max_tokens=33, temperature=0.9, top_p=0.95, seed=42, top_k=50)),
        ("grounding", "official", SamplingParams(max_tokens=33, temperature=0.9, top_p=0.95, seed=42, top_k=50)),
        ("scene_cls", "official", SamplingParams(max_tokens=33)),
        ("caption", "official", SamplingParams(max_tokens=33)),
    ],
)
def test_greedy_by_default_and_the_official_draws_by_a_flag(
    task: str, sampling: str, wanted: SamplingParams, world: World, stand_in: StandIn
) -> None:
    done = world.infer(task, sampling=sampling, max_new_tokens=33, engine="vllm")
    assert set(stand_in.params) == {wanted}
    assert stand_in.opened[0]["name"] == "vllm" and stand_in.opened[0]["max_length"] >= 33
    assert bool(done.notes) == (sampling == "official" and task == "caption")


def test_a_draw_goes_by_the_question_and_not_by_its_place(world: World, stand_in: StandIn) -> None:
    items = world.items()
    world.infer(sampling="official")
    before = {r.messages[-1]["content"]: r.id for r in stand_in.asked}
    world.write([*reversed(items), items[0]])
    assert world.infer(sampling="official").n_new == 1  # a repeated question is drawn anew
    assert len({r.id for r in stand_in.asked}) == N + 1
    world.out.rename(world.path / "moved.json")
    for log in world.logs():
        log.unlink()
    stand_in.asked.clear()
    world.infer(sampling="official")
    assert {r.messages[-1]["content"]: r.id for r in stand_in.asked[:N]} == before
    world.infer()
    assert world.infer().n == N + 1 and len(stand_in.asked) == N + 1 + N  # a greedy answer serves both


def test_batches(world: World, stand_in: StandIn) -> None:
    world.infer(batchsize=4, workers=3)
    assert stand_in.sizes == [4, 4, 2]
    stand_in.name = "vllm"
    world.infer(batchsize=4, max_new_tokens=7)
    assert stand_in.sizes[3:] == [N]  # vLLM fills its own batches


def test_a_gpu_that_is_not_there_is_refused_or_noted(
    world: World, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # put back afterwards
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(process, "has_gpu", lambda: False)
    assert "no GPU found; --gpu 0 is ignored, running on the CPU" in world.infer(gpu=0).notes
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(process, "has_gpu", lambda: True)
    monkeypatch.setattr(process, "gpus", lambda: 1)
    with pytest.raises(InputError, match="no GPU 1: this machine has 1 in --gpu"):
        world.infer(gpu=1)


# --- kills and resumption ---------------------------------------------------------------------------------


def test_a_killed_run_goes_on_without_loss_or_repetition(world: World, stand_in: StandIn) -> None:
    stand_in.stop_after = N // 2 + 1
    with pytest.raises(ConnectionAbortedError):
        world.infer()
    assert not world.out.exists()
    first = [r.id for r in stand_in.asked]
    assert 0 < len(first) < N and stand_in.n_closed == 1
    stand_in.stop_after = None
    done = world.infer()
    assert (done.n, done.n_new) == (N, N - len(first))
    asked = [r.id for r in stand_in.asked]
    assert len(asked) == len(set(asked)) == N
    assert [r["pred"] for r in world.records()] == [str(i) for i in range(N)]


def test_a_finished_run_loads_no_model_and_touches_nothing(world: World, stand_in: StandIn) -> None:
    world.infer()
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (world.out, *world.logs())}
    done = world.infer()
    assert (done.n, done.n_new, len(stand_in.opened)) == (N, 0, 1)
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before} == before
    world.out.unlink()
    assert world.infer().n_new == 0 and len(world.records()) == N


@pytest.mark.parametrize("change", ["weights", "max_new_tokens", "sampling", "seed"])
def test_other_models_and_settings_never_mix(change: str, world: World, stand_in: StandIn) -> None:
    base: dict[str, Any] = {"task": "grounding", "sampling": "official"}
    stand_in.stop_after = N // 2
    with pytest.raises(ConnectionAbortedError):
        world.infer(**base)
    stand_in.stop_after, n_before = None, len(stand_in.asked)
    other = {"max_new_tokens": 9, "sampling": "greedy", "seed": 1}
    if change == "weights":
        write_weights(world.model / "model.safetensors", b"others")
    else:
        base[change] = other[change]
    done = world.infer(**base)
    assert done.n_new == N == len(stand_in.asked) - n_before and len(world.logs()) == 2
    assert any("answers of other models or settings" in note for note in done.notes)


def test_a_changed_question_is_asked_again_alone(world: World, stand_in: StandIn) -> None:
    items = world.items()
    world.infer()
    items[3]["conversations"][-1]["value"] = "corrected"
    world.write(items)
    assert world.infer().n_new == 0 and world.records()[3]["label"] == "corrected"
    world.write(items[::-1])
    assert world.infer().n_new == 0 and [r["label"] for r in world.records()][6] == "corrected"
    items[3]["conversations"][0]["value"] = "<image>Another question 33"
    world.write(items)
    assert world.infer().n_new == 1 and world.records()[3]["pred"] == "33"
    n_before = len(stand_in.asked)
    Image.new("RGB", (44, 20), "white").save(world.path / "images" / "4.png")  # same name and size, two questions
    assert world.infer().n_new == 2
    assert [r.messages[-1]["content"].split()[-1] for r in stand_in.asked[n_before:]] == ["8", "9"]
    (world.path / "images" / "4.png").rename(world.path / "images" / "renamed.png")
    items[8]["images"] = items[9]["images"] = ["images/renamed.png"]
    world.write(items)
    assert world.infer().n_new == 0 and world.records()[8]["image_path"] == "images/renamed.png"
    assert world.infer(system=True).n_new == N  # the system prompt is part of every question
    assert world.infer(task="caption", system=True).n_new == 0 and len(world.logs()) == 1


def test_where_and_how_fast_it_runs_does_not_ask_anew(world: World, stand_in: StandIn) -> None:
    world.infer()
    moved = world.model.rename(world.path / "elsewhere")
    options: dict[str, Any] = {"batchsize": 5, "workers": 2, "engine": "vllm", "seed": 9}  # greedy: the seed is unused
    assert infer(moved, world.json, world.out, "vqa", progress=lambda line: None, **options).n_new == 0


@settings(max_examples=20)
@given(cut=st.integers(0, 10_000))
def test_a_log_cut_anywhere_gives_the_same_output(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    engine = StandIn(echo)
    world = World(tmp_path_factory.mktemp("cut") / "world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "open_engine", engine.open)
        world.infer()
        whole, output = world.logs()[0].read_bytes(), world.out.read_bytes()
        size = cut % (len(whole) + 1)
        world.logs()[0].write_bytes(whole[:size])
        world.out.unlink()
        done = world.infer()
    assert world.out.read_bytes() == output and world.logs()[0].read_bytes() == whole
    chunks_left = max(0, whole[:size].count(b"\n") - 1)
    assert done.n_new == N - 2 * chunks_left  # a chunk is there whole or not at all


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from stand_in_infer import StandIn, echo
from geozero import engines
from geozero.inference.json_job import infer
def slow(request):
    time.sleep(0.15)
    return echo(request)
engines.open_engine = StandIn(slow).open
infer(*map(Path, sys.argv[1:4]), "vqa", batchsize=1)
"""


def test_kill_9_in_the_middle(world: World, stand_in: StandIn) -> None:
    code = KILLED.format(tests=str(SUPPORT))
    child = subprocess.Popen([sys.executable, "-c", code, world.model, world.json, world.out], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (world.logs() and world.logs()[0].read_bytes().count(b"\n") > N // 2):
            time.sleep(0.01)
        with pytest.raises(InputError, match="another process is answering"):
            world.infer()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert child.returncode == -signal.SIGKILL and not world.out.exists()
    done = world.infer()
    assert N // 2 <= N - done.n_new < N and done.n == N
    assert [r["pred"] for r in world.records()] == [str(i) for i in range(N)]
    keys = [key for line in world.logs()[0].read_text().splitlines()[1:] for key in json.loads(line)["answers"]]
    assert len(keys) == len(set(keys)) == N


def test_a_damaged_log_is_refused(world: World, stand_in: StandIn) -> None:
    world.infer()
    (log,) = world.logs()
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(InputError, match=r"the answer log is damaged in .* \(delete it"):
        world.infer()
    log.write_bytes(lines[0].replace(b": 1048576", b": 4096") + lines[1])
    with pytest.raises(InputError, match="of another model or other settings"):
        world.infer()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no directory of the system's own")
def test_an_output_where_nothing_can_be_made_is_one_line(world: World, stand_in: StandIn) -> None:
    world.out = Path("/proc/none/answers.json")
    with pytest.raises(InputError, match="no directory can be made there in /proc/none"):
        world.infer()
    assert not stand_in.asked


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(answer_log.fcntl, "flock", refuse)
    with AnswerLog(tmp_path / "o.json", {"model": "m"}) as log:
        log.append({"key": [Completion("a", "stop", 1)]}, {})


def test_a_full_disk_is_one_line_and_what_was_written_stays(
    world: World, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, n_calls = os.write, 0

    def full(file: int, data: bytes) -> int:
        nonlocal n_calls
        n_calls += 1
        if n_calls < 4:
            return written(file, data)
        if n_calls == 4:
            return written(file, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(answer_log.os, "write", full)
        with pytest.raises(InputError, match="no space left on the disk"):
            world.infer()
    assert world.infer().n_new == N - 4  # two chunks of two were whole
    assert [r["pred"] for r in world.records()] == [str(i) for i in range(N)]


def test_a_log_holds_text_of_every_kind(tmp_path: Path) -> None:
    odd = {"0": [Completion("a\nb\u2028\x00 م <b>", "stop", 2, 7)], "1": [Completion("", "error", 0, None, "why")] * 2}
    with AnswerLog(tmp_path / "o.json", {"model": "m"}) as log:
        log.append(odd, {"engine": "x"})
        assert log.n_new == 1  # a failed request is no answer
    with AnswerLog(tmp_path / "o.json", {"model": "m"}) as log:
        assert log.answers == odd and log.n_new == 0


# --- what cannot be asked ---------------------------------------------------------------------------------


def test_missing_and_unreadable_images_are_listed_count_as_wrong_and_can_be_mended(
    world: World, stand_in: StandIn
) -> None:
    whole = (world.path / "images" / "3.png").read_bytes()
    (world.path / "images" / "1.png").rename(world.path / "kept.png")
    (world.path / "images" / "3.png").write_bytes(b"no image")
    items = world.items()
    items[9]["images"] = ["https://example.org/a.png"]
    world.write(items)
    stand_in.rule = lambda request: "!" if "Question 0" in str(request.messages) else echo(request)
    done = world.infer()
    listed = json.loads((world.path / "answers.failed.json").read_text())
    assert listed == done.failed
    assert [(f["item"], f["reason"].split(":")[0]) for f in listed] == [
        (0, "prompt_too_long"),
        (2, "image_missing"),
        (3, "image_missing"),
        (6, "image_unreadable"),
        (7, "image_unreadable"),
        (9, "image_missing"),
    ]
    assert done.n == N and any("official protocol counts an empty vqa prediction as right" in n for n in done.notes)
    records = world.records()
    assert (records[2]["raw_output"], records[2]["pred"], records[2]["label"]) == ("", "", "2")
    assert records[2]["error"] == "image_missing: images/1.png"
    result = evaluate("vqa", "strict", world.out)
    assert result["metrics"]["accuracy"] == (N - 6) / N and result["metrics"]["n_empty_pred"] == 6

    (world.path / "kept.png").rename(world.path / "images" / "1.png")
    (world.path / "images" / "3.png").write_bytes(whole)
    stand_in.rule = echo
    stand_in.asked.clear()
    done = world.infer()
    assert [f["item"] for f in done.failed] == [9] and len(stand_in.asked) == done.n_new == 5
    assert evaluate("vqa", "strict", world.out)["metrics"]["accuracy"] == (N - 1) / N
    items[9]["images"] = ["images/4.png"]
    world.write(items)
    assert world.infer().failed == [] and not (world.path / "answers.failed.json").exists()


def test_without_any_image_no_model_is_loaded(world: World, stand_in: StandIn) -> None:
    for path in (world.path / "images").iterdir():
        path.unlink()
    done = world.infer("grounding")
    assert len(done.failed) == done.n == N and stand_in.opened == []
    assert evaluate("grounding", "strict", world.out)["n"] == N
    assert any("image of unknown size" in note for note in done.notes)


BROKEN: list[Any] = [
    None,
    7,
    {},
    {"conversations": [], "images": ["images/0.png"]},
    {"conversations": "hello", "images": ["images/0.png"]},
    {"conversations": [None], "images": ["images/0.png"]},
    {"conversations": [{"from": "gpt", "value": "yes"}], "images": ["images/0.png"]},
    {"conversations": [{"from": "alien", "value": "yes"}], "images": ["images/0.png"]},
    {"conversations": [{"from": ["human"], "value": "yes"}], "images": ["images/0.png"]},
    {"conversations": [{"from": "human", "value": 3.5}, {"from": "gpt", "value": "x"}], "images": ["images/0.png"]},
    item(0, "images/0.png") | {"images": []},
    item(0, "images/0.png") | {"images": ["images/0.png", "images/1.png"]},
    item(0, "images/0.png") | {"images": [3]},
    item(0, "x" * 5000),
    item(0, "nul\0byte.png"),
    item(0, "images"),
    {"conversations": [{"from": "human", "value": "<image> and <image>"}], "images": ["images/0.png"]},
]


def test_broken_items_cost_themselves(world: World, stand_in: StandIn) -> None:
    world.write([*BROKEN, item(8, "images/0.png", "8")])
    for task in ("vqa", "caption", "grounding", "scene_cls"):
        done = world.infer(task)
        assert done.n == len(BROKEN) + 1 and [f["item"] for f in done.failed] == list(range(len(BROKEN)))
        assert world.records()[-1]["pred"] == "8"
        assert evaluate(task, "strict", world.out)["n"] == done.n


def test_labels_of_any_kind_become_text(world: World, stand_in: StandIn) -> None:
    items = [item(i, "images/0.png") for i in range(5)]
    for i, value in enumerate((4, float("nan"), [1, 2, 3, 4], {"a": 1}, "half a pair \ud800")):
        items[i]["conversations"][-1]["value"] = value
    world.write(items)
    world.infer()
    assert [r["label"] for r in world.records()] == ["4", "", "[1, 2, 3, 4]", "", "half a pair ?"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["conversations", "images", "refs", "from", "value", "id", "width"]), inner)
    ),
    max_leaves=12,
)


@given(rows=st.lists(json_values, max_size=5), task=st.sampled_from(["vqa", "caption"]))
def test_any_json_list_becomes_items(rows: list[Any], task: Any) -> None:
    items = parse_items(rows, task)
    assert [i.number for i in items] == list(range(len(rows))) and len({i.id for i in items}) == len(rows)
    for found in items:
        json.dumps([found.id, found.label, found.image, found.messages(True)], allow_nan=False).encode()
        assert found.fault is not None or sum(t.count("<image>") for _, t in found.turns) == 1
        assert isinstance(found.label, list) == (task == "caption")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": 1}', "a JSON dict instead of a list"),
        (b"[]", "the list is empty"),
    ],
)
def test_what_is_no_evaluation_json(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "e.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_items(tmp_path / "e.json", "vqa")
    with pytest.raises(InputError, match="no such evaluation file"):
        read_items(tmp_path / "nowhere.json", "vqa")


def test_the_output_is_no_directory_and_not_the_input(world: World, stand_in: StandIn) -> None:
    world.out.mkdir()
    with pytest.raises(InputError, match="a directory stands where"):
        world.infer()
    with pytest.raises(InputError, match="the output would replace the questions"):
        infer(world.model, world.json, world.json, "vqa")
    with pytest.raises(InputError, match="no such model"):
        infer("nowhere", world.json, world.path / "new.json", "vqa")
    assert stand_in.opened == [] and len(world.items()) == N


# --- the command ------------------------------------------------------------------------------------------


def geozero(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["geozero", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        app.main()
    return int(caught.value.code or 0)


def test_the_published_flags(
    world: World, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    (world.path / "images" / "4.png").unlink()
    out = world.path / "deep" / "er" / "answers.json"
    given = {"model_path": world.model, "json_path": world.json, "output_path": out, "task": "vqa", "batchsize": 4}
    given |= {"gpu": 1, "system": "True", "max_new_tokens": 99, "workers": 2}
    assert geozero(monkeypatch, "infer", *(w for name, value in given.items() for w in (f"--{name}", value))) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = out.with_name("answers.failed.json")
    assert lines[0] == "8 questions to ask"
    assert any(line.startswith(f"{out}\t10 records\t8 new\t2 failed, listed in {listed}\t") for line in lines)
    assert stand_in.asked[0].messages[0] == {"role": "system", "content": SYSTEM_PROMPT}
    assert stand_in.params[0].max_tokens == 99 and os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert geozero(monkeypatch, "evaluate", "--task", "vqa", "--records", out, "--out", world.path / "s.json") == 0
    assert json.loads((world.path / "s.json").read_text())["metrics"]["accuracy"] == 0.8


def test_a_word_for_system_that_is_neither(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model_path", world.model, "--json_path", world.json, "--output_path", world.out, "--task", "vqa"]
    assert geozero(monkeypatch, "infer", *words, "--system", "maybe") == 2
    assert "'maybe' is neither True nor False in --system" in capsys.readouterr().err


@pytest.mark.slow
def test_the_tiny_model_answers_real_images_and_evaluate_reads_them(tmp_path: Path) -> None:
    model, tiles = ROOT / "models" / "tiny-qwen3-vl", sorted((ROOT / "data/samples/neon/tiles").glob("*.jpg"))[:5]
    items = [item(i, str(tile), "yes", question_type="presence") for i, tile in enumerate(tiles)]
    (tmp_path / "eval.json").write_text(json.dumps([*items, item(5, "gone.jpg")]))
    words = ["--model_path", model, "--json_path", "eval.json", "--output_path", "out.json", "--task", "vqa"]
    words += ["--batchsize", "2", "--max_new_tokens", "48", "--system", "True", "--engine", "transformers"]
    command = [sys.executable, "-m", "geozero.cli", "infer", *map(str, words)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "out.json\t6 records\t5 new\t1 failed, listed in out.failed.json" in done.stdout
    first = (tmp_path / "out.json").read_bytes()
    records = json.loads(first)
    assert all(r["raw_output"] and (r["width"], r["height"]) == (256, 256) for r in records[:5])
    assert "<answer>" in records[0]["raw_output"]  # the system prompt reached the model
    result = evaluate("vqa", "strict", tmp_path / "out.json")
    assert result["n"] == 6 and result["groups"]["question_type"]["presence"]["n"] == 5
    # the last chunk lost: the rest is answered again alike
    (log,) = tmp_path.glob("out.json.*.jsonl")
    log.write_bytes(log.read_bytes()[:-20])
    (tmp_path / "out.json").unlink()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "out.json\t6 records\t1 new" in done.stdout and (tmp_path / "out.json").read_bytes() == first


# --- one bad item never ends a run ------------------------------------------------------------------------


def test_files_that_are_no_images_are_listed_and_the_rest_is_answered(world: World, stand_in: StandIn) -> None:
    good = (world.path / "images" / "0.png").read_bytes()
    with (world.path / "sparse.png").open("wb") as file:
        file.write(good)
        file.truncate(200 * 10**9)
    os.mkfifo(world.path / "pipe.png")
    (world.path / "folder.png").mkdir()
    (world.path / "empty.png").write_bytes(b"")
    names = ["sparse.png", "pipe.png", "folder.png", "empty.png", "n" * 5000, "\0", "images/0.png"]
    world.write([item(i, name, str(i)) for i, name in enumerate(names)])
    done = world.infer()
    reasons = [row["reason"].partition(":")[0] for row in done.failed]
    assert reasons == ["image_too_large", *["image_missing"] * 2, "image_unreadable", *["image_missing"] * 2]
    assert (done.n, done.n_new) == (7, 1) and world.records()[-1]["pred"] == "6"


def test_an_item_on_which_the_engine_raises_fails_alone(world: World, stand_in: StandIn) -> None:
    def rule(request: Any) -> str:
        if request.messages[-1]["content"].endswith(" 3"):
            raise RuntimeError("CUDA error:\nan illegal value")
        return echo(request)

    stand_in.rule = rule
    done = world.infer(batchsize=8)
    assert [(row["item"], row["reason"]) for row in done.failed] == [
        (3, "engine_error: RuntimeError: CUDA error: an illegal value")
    ]
    assert [r["pred"] for r in world.records()] == [str(i) if i != 3 else "" for i in range(N)]


def test_an_engine_that_raises_on_everything_ends_the_run(world: World, stand_in: StandIn) -> None:
    def broken(request: Any) -> str:
        raise RuntimeError("no kernel image")

    stand_in.rule = broken
    with pytest.raises(RuntimeError, match="no kernel image"):
        world.infer(batchsize=4)


def test_large_images_are_asked_about_on_request(world: World, stand_in: StandIn) -> None:
    Image.new("L", (14_000, 14_000)).save(world.path / "images" / "large.png")
    world.write([item(0, "images/large.png", "0")])
    assert "image_too_large: images/large.png: 14000x14000" in world.infer().failed[0]["reason"]
    assert world.infer(max_megapixels=200).failed == []
    with Image.open(io.BytesIO(stand_in.asked[-1].image)) as shown:
        assert shown.size == (2048, 2048)
    assert (world.records()[0]["width"], world.records()[0]["height"]) == (14_000, 14_000)


def test_questions_may_be_json_lines(world: World, stand_in: StandIn) -> None:
    items = world.items()
    world.json = world.path / "eval.jsonl"
    world.json.write_text("\n".join([*map(json.dumps, items[:2]), "{broken", "", json.dumps(items[3])]) + "\n")
    done = world.infer()
    assert [r["pred"] for r in world.records()] == ["0", "1", "", "3"]
    assert [row["reason"] for row in done.failed] == ["item_malformed: str"]


def test_a_label_may_be_a_list(world: World, stand_in: StandIn) -> None:
    world.write([item(2, "images/0.png", ["two", "2"])])  # type: ignore[arg-type]
    world.infer()
    assert world.records()[0]["label"] == ["two", "2"]
    assert evaluate("vqa", "strict", world.out, resamples=5)["metrics"]["accuracy"] == 1
    world.write([item(2, "images/0.png", [[1, 2, 3, 4]])])  # type: ignore[arg-type]
    world.infer("grounding")
    assert world.records()[0]["label"] == "[[1, 2, 3, 4]]"

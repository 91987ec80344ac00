"""Every command's bad input: exit code 2, one line with what, where and how to fix, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from fixtures import make_sources
from paths import ROOT

from geozero.cli import app
from geozero.curation.ingest.ingest import ingest

PARAMS = ROOT / "params.yaml"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Geozero = Callable[..., Result]


@pytest.fixture
def geozero(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Geozero:
    """The command line in this process, as `geozero.cli.app.main` runs it."""

    def run(*words: object) -> Result:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["geozero", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            app.main()
        out, err = capfd.readouterr()
        return Result(int(caught.value.code or 0), out, err)

    return run


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data sets, corpora, a corpus without a manifest, records, parameters, and things that are none of these."""
    place = tmp_path_factory.mktemp("cli")
    make_sources.write_all(place / "sets")
    for name in ("rsicd", "dior_rsvg"):
        ingest(name, place / "sets", place / name)
    shutil.copytree(place / "rsicd", place / "unfinished")
    (place / "unfinished" / "manifest.json").unlink()
    shutil.copytree(place / "rsicd", place / "damaged")
    (place / "damaged" / "samples-00000.parquet").write_bytes(b"PAR1 and nothing else")
    ingest("rsicd", place / "sets", place / "only_test", "test")
    for name in ("empty", "no_model", "bad_store", "something"):
        (place / name).mkdir()
    (place / "something" / "thesis.tex").write_text("years of work")
    (place / "bad_store" / "_current.json").write_text("{")
    (place / "broken.zip").write_bytes(b"PK\x03\x04" + bytes(200))
    (place / "notes.txt").write_text("no archive")
    (place / "broken.json").write_text('[{"raw_output": "yes", ')
    (place / "object.json").write_text('{"raw_output": "yes"}')
    (place / "good.json").write_text('[{"raw_output": "yes", "pred": "yes", "label": "yes", "image_path": "a.jpg"}]')
    (place / "params.yaml").write_text(PARAMS.read_text())
    values = yaml.safe_load(PARAMS.read_text())
    for name, section, change in (
        ("unknown", "sft", {"stepz": 1}),
        ("range", "sampling", {"k": 0}),
        ("type", "a2grpo", {"steps": "many"}),
    ):
        (place / f"{name}.yaml").write_text(yaml.safe_dump({**values, section: {**values[section], **change}}))
    (place / "no_toy.yaml").write_text(yaml.safe_dump({k: v for k, v in values.items() if k != "toy"}))
    (place / "scalar.yaml").write_text("cpu-toy\n")
    return place


@pytest.fixture
def here(originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to work in."""
    shutil.copytree(originals, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def everything(place: Path) -> dict[str, bytes]:
    return {str(p.relative_to(place)): p.read_bytes() if p.is_file() else b"" for p in place.rglob("*")}


def refused(result: Result) -> str:
    """The one line of a refusal."""
    assert result.code == 2
    assert result.err.count("\n") == 1 and result.err.startswith("geozero: ") and "Traceback" not in result.err
    assert result.out == ""
    return result.err.strip()


INGEST, RAW, SAMPLE = "ingest aid --root sets --out new", "raw --in rsicd --out new", "sample --corpus rsicd --out new"
SELECT, EVALUATE = "select --out-instruct new --out-hard new2", "evaluate --out new.json --task vqa --records"
CASES = [
    # wrong use
    ("nope", "No such command 'nope' (see `geozero --help`)"),
    ("toy nope", "No such command 'nope' (see `geozero toy --help`)"),
    ("doctor nope", "unexpected extra argument"),
    ("ingest aid --root sets", "Missing option '--out' (see `geozero ingest --help`)"),
    ("ingest", "Missing argument 'source' (see `geozero ingest --help`)"),
    (f"{INGEST} --splitt all", "No such option: --splitt"),
    (f"{INGEST} --split dev", "'--split': 'dev' is not one of 'train', 'val', 'test', 'all'"),
    ("raw --out new", "Missing option '--in'"),
    ("inspect rsicd --n -1", "'--n': Input should be greater than or equal to 0"),
    ("inspect rsicd --n many", "'--n': Input should be a valid integer"),
    (f"{SAMPLE} --model m --k 0", "'--k': Input should be greater than or equal to 1"),
    (f"{SAMPLE} --model m --limit 0", "'--limit': "),
    (f"{SAMPLE} --model m --workers 0", "'--workers': "),
    (f"{SAMPLE} --model m --engine gpt", "'--engine': 'gpt' is not one of 'auto', 'vllm', 'transformers'"),
    ("sft --params", "Option '--params' requires an argument"),
    # data sets
    ("sources --root nowhere", "no such file or directory in nowhere ("),
    ("sources --root notes.txt", "this is no zip or tar archive in notes.txt ("),
    ("ingest uad --root sets --out new", "unknown source 'uad' (one of aid, "),
    ("ingest aid --root nowhere --out new", "no such file or directory in nowhere ("),
    ("ingest aid --root empty --out new", "no files there in empty ("),
    ("ingest aid --root notes.txt --out new", "this is no zip or tar archive in notes.txt (unpack it "),
    ("ingest aid --root broken.zip --out new", "the archive is damaged: "),
    ("ingest aid --root sets/RSICD --out new", "no AID found: looked for "),
    (
        "ingest aid --root sets --out something",
        "not empty and holds no corpus in {here}/something (",
    ),
    ("ingest aid --root sets --out notes.txt", "a file stands where the corpus is to go in {here}/notes.txt ("),
    ("ingest aid --root sets --out notes.txt/c", "a file stands where a directory is expected in {here}/notes.txt"),
    ("ingest aid --root sets --out .", "the output directory is not empty and holds no corpus in {here} ("),
    # corpora
    ("raw --in nowhere --out new", "no such corpus directory in nowhere (run `geozero ingest`"),
    ("raw --in unfinished --out new", "manifest.json is missing in unfinished ("),
    ("raw --in rsicd --eval unfinished --out new", "manifest.json is missing in unfinished ("),
    ("raw --in damaged --out new", "damaged shard: it has changed in damaged/samples-00000.parquet "),
    ("raw --in only_test --out new", "no training sample is left of 0 in only_test ("),
    ("raw --in rsicd --in only_test --out something", "not empty and holds no corpus"),
    ("inspect nowhere", "no such corpus directory in nowhere ("),
    ("inspect unfinished", "manifest.json is missing in unfinished ("),
    ("inspect damaged", "damaged shard: it has changed in damaged/samples-00000.parquet "),
    ("inspect rsicd --html empty", "a directory stands where a file is expected in empty ("),
    # difficulty
    ("sample --corpus nowhere --model no_model --out new", "no such corpus directory in nowhere ("),
    ("sample --corpus unfinished --model no_model --out new", "manifest.json is missing in unfinished ("),
    (f"{SAMPLE} --model nowhere", "no such model in nowhere ("),
    (f"{SAMPLE} --model no_model", "no model here: config.json is missing in no_model ("),
    (f"{SAMPLE} --model no_model --shard 3/2", "no such shard '3/2' in --shard (write i/n "),
    (f"{SAMPLE} --model no_model --params nowhere.yaml", "no such parameter file in nowhere.yaml ("),
    (f"{SAMPLE} --model no_model --params range.yaml", "parameter 'sampling.k': "),
    (f"{SELECT} --corpus nowhere --store new3", "no such corpus directory in nowhere ("),
    (f"{SELECT} --corpus rsicd --store nowhere", "no answer store here in nowhere (run `geozero sample` first)"),
    (f"{SELECT} --corpus rsicd --store bad_store", "unreadable answer store in bad_store/_current.json ("),
    (
        f"{SELECT} --corpus rsicd --store bad_store --params unknown.yaml",
        "unknown parameter 'sft.stepz' in unknown.yaml",
    ),
    # training
    *[(f"{stage} --params nowhere.yaml", "no such parameter file in ") for stage in ("filter", "sft", "a2grpo")],
    *[(f"{stage} --params unknown.yaml", "unknown parameter 'sft.stepz' in ") for stage in ("filter", "sft", "a2grpo")],
    ("sft --params range.yaml", "parameter 'sampling.k': Input should be greater than or equal to 1, not 0 in "),
    ("a2grpo --params type.yaml", "parameter 'a2grpo.steps': Input should be a valid integer"),
    ("sft --params scalar.yaml", "it holds no parameters in "),
    ("filter", "no such model in models/tiny-qwen3-vl ("),
    ("sft --dry-run", "no such model in models/tiny-qwen3-vl ("),
    ("a2grpo", "no finished sft run in {here}/runs (run `geozero sft` first, or give --model)"),
    ("a2grpo --model no_model --dry-run", "config.json is missing in no_model ("),
    # evaluation
    (f"{EVALUATE} nowhere.json", "no such records file in nowhere.json ("),
    (f"{EVALUATE} empty", "the records file cannot be read: Is a directory in empty ("),
    (f"{EVALUATE} broken.json", "not JSON: "),
    (f"{EVALUATE} object.json", "a JSON dict instead of a list in object.json ("),
    (f"{EVALUATE} good.json --task ocr", "unknown task 'ocr' (one of scene_cls, "),
    (f"{EVALUATE} good.json --protocol lax", "unknown protocol 'lax' (one of strict, official)"),
    (f"{EVALUATE} good.json --boxes inches", "unknown coordinate convention 'inches' (one of "),
    ("report --data nowhere", "no such directory in nowhere ("),
    ("report --data empty", "none of scores.json, "),
    # the toy world
    ("toy world --params nowhere.yaml --out new", "no such parameter file in nowhere.yaml ("),
    ("toy world --params no_toy.yaml --out new", "the profile has no toy world in no_toy.yaml ("),
    ("toy world --out something", "the directory holds something other than a toy world in something ("),
]


@pytest.mark.parametrize(("words", "message"), CASES, ids=[words for words, _ in CASES])
def test_bad_input_is_one_line(words: str, message: str, geozero: Geozero, here: Path) -> None:
    before = everything(here)
    assert message.format(here=here) in refused(geozero(*words.split()))
    assert everything(here) == before


# --- data sets with faults --------------------------------------------------------------------------------


def test_a_truncated_image_costs_its_record(geozero: Geozero, here: Path) -> None:
    result = geozero(*INGEST.split())
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("new\t10 samples\t10 images\t2 rejected\n")
    assert "aid\trejected\timage_broken\t1" in result.out.splitlines()


def test_what_was_fixed_is_told(geozero: Geozero, here: Path) -> None:
    """The fixture has a box that reaches a pixel outside its image."""
    result = geozero("ingest", "dior_rsvg", "--root", "sets", "--out", "new")
    assert "new\tfixed or unusual, kept\tbox_clamped\t1" in result.out.splitlines()
    assert "fixed or odd, kept\tbox_clamped\t1" in geozero("inspect", "new").out.splitlines()


def test_an_annotation_that_names_a_missing_image_costs_itself(geozero: Geozero, here: Path) -> None:
    result = geozero("ingest", "rsicd", "--root", "sets", "--out", "new")
    assert result.code == 0 and "rsicd\trejected\timage_missing\t1" in result.out.splitlines()


def break_all_images(root: Path) -> None:
    for path in (root / "RSICD" / "RSICD_images").iterdir():
        path.write_bytes(path.read_bytes()[:300])


def remove_all_images(root: Path) -> None:
    for path in (root / "RSICD" / "RSICD_images").iterdir():
        path.rename(path.with_name(f"other_{path.name}"))


def replace_list(text: str) -> Callable[[Path], object]:
    return lambda root: (root / "RSICD" / "dataset_rsicd.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_all_images, "rejected as image_broken in sets/RSICD (check --root)"),
        (remove_all_images, "rejected as image_missing in sets/RSICD (check --root)"),
        (replace_list("{"), "malformed annotation file"),
        (replace_list("[]"), "in sets/RSICD/dataset_rsicd.json"),
        (replace_list('{"images": [1, null, {"filename": 3}]}'), "no sample of RSICD could be made"),
    ],
)
def test_a_set_without_a_single_sample(
    damage: Callable[[Path], object], message: str, geozero: Geozero, here: Path
) -> None:
    damage(here / "sets")
    before = everything(here)
    assert message in refused(geozero("ingest", "rsicd", "--root", "sets", "--out", "new"))
    assert refused(geozero("ingest", "rsicd", "--root", "sets", "--out", "only_test"))  # an older corpus stays
    assert everything(here) == before


def test_malformed_records_cost_themselves(geozero: Geozero, here: Path) -> None:
    good = json.loads((here / "good.json").read_text())
    (here / "mixed.json").write_text(json.dumps([*good, None, 7, {"label": "yes"}, {"raw_output": None}]))
    result = geozero("evaluate", "--task", "vqa", "--records", "mixed.json", "--out", "deep/new.json")
    assert (result.code, result.err) == (0, "") and result.out.startswith("accuracy\t")
    written = json.loads((here / "deep" / "new.json").read_text())
    assert written["n"] == 5 and written["problems"]


# --- the machine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no space left on the disk in {here}/new (make room, or choose another place)"),
        (errno.EDQUOT, "the disk quota is used up in {here}/new ("),
        (errno.EROFS, "the disk is read-only in {here}/new ("),
        (errno.EACCES, "no permission in {here}/new ("),
    ],
)
@pytest.mark.parametrize("words", [INGEST, RAW])
def test_a_full_disk(
    words: str, number: int, message: str, geozero: Geozero, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    before = everything(here)
    monkeypatch.setattr(pq, "write_table", full)
    assert message.format(here=here) in refused(geozero(*words.split()))
    assert everything(here) == before


def test_a_full_disk_anywhere_else(geozero: Geozero, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "new.json")

    monkeypatch.setattr("geozero.evaluation.evaluate.write_json", full)
    assert "no space left on the disk in new.json (" in refused(geozero(*EVALUATE.split(), "good.json"))


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "x"), RuntimeError("ours"), KeyError("ours")])
def test_a_fault_of_ours_is_not_disguised(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise error

    monkeypatch.setattr("geozero.curation.card.inspect.inspect", broken)
    monkeypatch.setattr(sys, "argv", ["geozero", "inspect", "c"])
    with pytest.raises(type(error)) as caught:  # the interpreter prints the traceback and exits with 1
        app.main()
    assert caught.value is error


def test_an_interrupt(geozero: Geozero, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("geozero.curation.card.inspect.inspect", interrupted)
    result = geozero("inspect", "c")
    assert (result.code, result.err) == (130, "")


def test_a_process_of_its_own_says_the_same() -> None:
    command = [sys.executable, "-m", "geozero.cli", "inspect", "/nowhere"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == "geozero: no such corpus directory in /nowhere (run `geozero ingest` or `geozero raw` first)\n"
    )

"""What the commands say when all is well: help with an example, one plain line an item when nobody watches."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from fixtures import make_sources

from geozero import __version__
from geozero.cli import app
from geozero.cli.difficulty import checkpoints
from geozero.corpus.store import Corpus
from geozero.sources import SOURCES
from geozero.sources.catalogue import catalogue
from geozero.sources.readers import archives, tree


@pytest.fixture
def geozero(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """The command line in this process: the lines on standard output of a command that succeeds in silence."""

    def run(*words: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["geozero", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            app.main()
        out, err = capsys.readouterr()
        assert not caught.value.code and err == ""
        return str(out).splitlines()

    return run


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(typer.main.get_command(app.app)))


# --- help -------------------------------------------------------------------------------------------------


def example(command: Any) -> list[str]:
    """The words of a command's example; it may be broken over several lines."""
    text = command.help.partition("Example: ")[2]
    return shlex.split(text.replace("\\\n", " "))


def test_the_commands_are_those_of_the_contract() -> None:
    wanted = {"doctor", "sources", "ingest", "raw", "inspect", "sample", "select", "filter", "sft", "a2grpo"}
    assert wanted | {"evaluate", "report", "toy world", "toy model"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_that_works(name: str, geozero: Callable[..., list[str]]) -> None:
    words, command = example(COMMANDS[name]), COMMANDS[name]
    path = name.split()
    assert words[: len(path) + 1] == ["geozero", *path]
    with command.make_context(name, words[len(path) + 1 :]) as context:  # parses and checks, runs nothing
        assert context.params is not None
    text = " ".join(geozero(*path, "--help"))
    assert "Example:" in text and f"geozero {name}" in text
    undescribed = [p.name for p in command.params if p.name != "help" and not p.help]
    assert undescribed == []


def test_the_version(geozero: Callable[..., list[str]]) -> None:
    assert geozero("--version") == [f"geozero {__version__}"]


# --- sources ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sets")
    make_sources.write_all(place)
    return place


def states(lines: list[str]) -> dict[str, str]:
    assert [line.count("\t") for line in lines] == [6] * len(SOURCES)
    return {name: state for name, _, state, *_ in (line.split("\t") for line in lines)}


def test_sources_are_one_line_each(geozero: Callable[..., list[str]], sets: Path) -> None:
    lines = geozero("sources", "--root", sets)
    found = states(lines)
    assert list(found) == list(SOURCES)
    assert {name for name, state in found.items() if state == "present"} >= {"aid", "rsvqa_lr", "rsicd", "dior_rsvg"}
    assert found["neon"] == "not found"
    assert lines[0].split("\t")[5:] == ["; ".join(SOURCES["aid"].layout.splitlines()), catalogue()["aid"].page]


def test_download_says_what_it_would_do(geozero: Callable[..., list[str]], tmp_path: Path) -> None:
    lines = geozero("download", "eurosat", "aid", "--root", tmp_path / "archives", "--dry-run")
    assert f"eurosat\tpage\t{catalogue()['eurosat'].page}" in lines and "eurosat\tlicence\tMIT" in lines
    assert {line.split("\t")[0] for line in lines} == {"eurosat", "aid"} and not (tmp_path / "archives").exists()


def test_the_root_is_read_once(
    geozero: Callable[..., list[str]], sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def counted(place: str, real: Callable[..., Any]) -> None:
        def call(*what: Any) -> Any:
            opened.append(Path(what[-1]).name)
            return real(*what)

        monkeypatch.setattr(place, call)

    counted("geozero.sources.readers.tree.list_opened", archives.list_opened)
    counted("geozero.sources.open_tree", tree.open_tree)
    shutil.make_archive(str(tmp_path / "RSICD"), "zip", sets, "RSICD")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and no more")
    found = states(geozero("sources", "--root", tmp_path))
    assert found["rsicd"] == "present" and found["aid"] == "not found"
    assert opened == [tmp_path.name, "RSICD.zip", "broken.zip"]


def test_a_set_in_several_places_is_present(geozero: Callable[..., list[str]], sets: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(sets / "RSICD" / "RSICD_images", tmp_path / name / "RSICD_images")
        shutil.copy(sets / "RSICD" / "dataset_rsicd.json", tmp_path / name)
    assert states(geozero("sources", "--root", tmp_path))["rsicd"] == "present (several places)"


def test_without_data_nothing_is_found_and_nothing_is_wrong(
    geozero: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert set(states(geozero("sources")).values()) == {"not found"}


def test_on_a_terminal_the_layout_stands_below(
    geozero: Callable[..., list[str]], sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    lines = geozero("sources", "--root", sets)
    assert lines[1] == "\t" + SOURCES["aid"].layout.splitlines()[0]
    assert sum(not line.startswith("\t") for line in lines) == len(SOURCES)


def test_a_reader_that_leaves_early_sees_no_traceback() -> None:
    script = f"{shlex.quote(sys.executable)} -m geozero.cli sources | head -n 1"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
    assert done.stdout.startswith("aid\t") and done.stderr == ""


# --- a line of commands -----------------------------------------------------------------------------------


def test_from_data_sets_to_raw(geozero: Callable[..., list[str]], sets: Path, tmp_path: Path) -> None:
    corpora = tmp_path / "corpus"
    for name, line in (("rsicd", "3 samples\t3 images\t4 rejected"), ("dior_rsvg", "5 samples\t3 images\t3 rejected")):
        assert geozero("ingest", name, "--root", sets, "--out", corpora / name)[0] == f"{corpora / name}\t{line}"
    (corpora / ".rsicd.part-1").mkdir()
    shutil.copy(corpora / "rsicd" / "manifest.json", corpora / ".rsicd.part-1")  # half-written: not one of them
    out = geozero("raw", "--in", corpora, "--out", tmp_path / "raw", "--metrics", tmp_path / "new" / "raw.json")
    assert out == [f"{tmp_path / 'raw'}\t2 samples\t2 images\t2 rejected", "dior_rsvg\trejected\tleak_exact\t2"]
    assert (tmp_path / "new" / "raw.json").is_file()
    packed = geozero("pack", tmp_path / "raw", "--out", tmp_path / "packed")
    assert packed == [out[0].replace(str(tmp_path / "raw"), str(tmp_path / "packed")), out[1]]
    assert geozero("pack", tmp_path / "raw", "--out", tmp_path / "packed") == packed
    again = geozero("raw", "--in", corpora / "dior_rsvg", "--in", corpora / "rsicd", "--out", tmp_path / "raw2")
    assert again[1:] == out[1:] and Corpus(tmp_path / "raw2").digest == Corpus(tmp_path / "raw").digest
    lines = geozero("inspect", tmp_path / "raw", "--n", 1)
    assert lines[0] == f"{tmp_path / 'raw'}: 2 samples, 2 images, 2 rejects" and lines[-1].startswith("sample\t")


def test_folds_are_taken_in_their_order(tmp_path: Path) -> None:
    for name in ("fold-10", "fold-2", "fold-0", "fold-best", "other"):
        (tmp_path / name).mkdir()
    assert checkpoints([str(tmp_path)]) == [str(tmp_path / f"fold-{n}") for n in (0, 2, 10)]
    assert checkpoints(["a", "b"]) == ["a", "b"] and checkpoints([str(tmp_path / "other")]) == [str(tmp_path / "other")]

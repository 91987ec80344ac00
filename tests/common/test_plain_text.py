"""What a stranger wrote reaches a terminal as text, never as a command to it."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from geozero.cli import predict as predicting
from geozero.cli.app import app
from geozero.common.errors import InputError
from geozero.common.progress import Progress
from geozero.common.redaction import PlainFormatter, plain
from geozero.common.terminal import draw_table, echo, summary

HOSTILE = "a\x1b]0;title\x07\x1b[2Jb\x9bc\rd\u202ee\u2066f\x7f"
UNSAFE = {"\x1b", "\x07", "\x9b", "\r", "\u202e", "\u2066", "\x7f"}


def test_controls_are_written_out_and_other_text_stays() -> None:
    assert plain("\x1b[2J\x9b\u202e\r") == r"\x1b[2J\x9b\u202e\r"
    assert plain("harbour – 港\tx\ny é 🛰 العربية") == "harbour – 港\tx\ny é 🛰 العربية"
    assert plain("\udcff") == r"\udcff"


def test_every_way_to_the_terminal_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    echo(HOSTILE)
    echo(HOSTILE, err=True)
    manifest = {
        "n_samples": 1,
        "n_images": 1,
        "n_rejects": 1,
        "rejects": [{"source": HOSTILE, "reason": HOSTILE, "n": 1}],
    }
    summary(manifest, Path(HOSTILE))
    draw_table(("what",), [(HOSTILE,), ((HOSTILE, "bold"),)])
    with Progress(what=HOSTILE) as bar:
        bar.step(HOSTILE)
    found = capsys.readouterr()
    assert "title" in found.out and "title" in found.err
    assert not UNSAFE & set(found.out + found.err)
    assert not UNSAFE & set(str(InputError(HOSTILE, HOSTILE, HOSTILE)))


def test_warnings_are_plain() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainFormatter())
    handler.handle(logging.LogRecord("x", logging.WARNING, "f", 1, "%s", (HOSTILE,), None))
    assert "title" in stream.getvalue() and not UNSAFE & set(stream.getvalue())


def test_an_answer_of_a_model_is_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geozero.inference import predict as inference

    image = tmp_path / "a.png"
    image.touch()
    answered = inference.Prediction(image, answer=HOSTILE, thought=HOSTILE)
    monkeypatch.setattr(inference, "predict", lambda *_, **__: iter([answered]))
    for tty in (predicting.line, predicting.block):
        monkeypatch.setattr(predicting, "line", tty)
        done = CliRunner().invoke(app, ["predict", str(image), "--model", "x"])
        assert done.exit_code == 0 and "title" in done.output and not UNSAFE & set(done.output)


def test_no_command_prints_past_the_helper() -> None:
    root = Path(predicting.__file__).parent
    assert [file.name for file in root.glob("*.py") if "typer.echo(" in file.read_text()] == []

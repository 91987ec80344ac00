"""A reader never meets half a file, and an error leaves what stood there before."""

from __future__ import annotations

from pathlib import Path

import pytest

from geozero.common.atomic import replacing, write_text
from geozero.common.errors import InputError


def test_a_file_takes_its_place_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(OSError, match="no space"), replacing(path) as temporary:
        temporary.write_text("ha")
        raise OSError("no space")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_rename_leaves_no_temporary_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*names: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(OSError, match="read-only"):
        write_text(tmp_path / "file.txt", "new")
    assert not list(tmp_path.iterdir())


def test_a_directory_is_replaced_as_a_whole(tmp_path: Path) -> None:
    out = tmp_path / "model"
    for name in ("first", "second"):
        with replacing(out) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert [p.name for p in out.iterdir()] == ["second"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no directory of the system's own")
def test_a_place_where_no_directory_can_be_made_is_one_line() -> None:
    with pytest.raises(InputError, match="no directory can be made there in /proc/none"):
        write_text(Path("/proc/none/file.txt"), "new")

"""Symbolic links: followed below the root, below a directory that the user names, and in a Hugging Face cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from geozero.common.errors import InputError
from geozero.sources.readers.tree import open_tree


def write(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def link(path: Path, target: Path | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def names(root: Path, *follow: Path) -> list[str]:
    with open_tree(root, follow) as tree:
        assert all(tree.read(name) == b"x" for name in tree.names())
        return tree.names()


def test_links_below_the_root_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "blobs" / "abc")
    link(tmp_path / "set" / "a.jpg", "../blobs/abc")
    link(tmp_path / "also", tmp_path / "set")
    assert names(tmp_path) == ["also/a.jpg", "blobs/abc", "set/a.jpg"]


def test_links_that_lead_out_need_a_name(tmp_path: Path) -> None:
    store, root = tmp_path / "store", tmp_path / "root"
    write(store / "deep" / "a.jpg")
    write(root / "b.jpg")
    link(root / "a.jpg", store / "deep" / "a.jpg")
    link(root / "all", store)
    link(root / "gone.jpg", store / "nothing")
    assert names(root) == ["b.jpg"]
    assert names(root, store) == ["a.jpg", "all/deep/a.jpg", "b.jpg"]
    with open_tree(root, [store]) as tree:
        assert tree.left_out() == [("gone.jpg", "link_broken")]
    with open_tree(root) as tree:
        assert [reason for _, reason in tree.left_out()] == ["link", "link", "link"]
        with pytest.raises(InputError, match=r"links are not followed, such as a.jpg, .*as --follow"):
            tree.locate("the set", ["a.jpg"])


def test_a_name_that_only_begins_like_the_root_is_outside(tmp_path: Path) -> None:
    write(tmp_path / "root-other" / "a.jpg")
    write(tmp_path / "root" / "b.jpg")
    link(tmp_path / "root" / "a.jpg", tmp_path / "root-other" / "a.jpg")
    assert names(tmp_path / "root") == ["b.jpg"]


def test_loops_end(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x.jpg")
    link(tmp_path / "a" / "self", ".")
    link(tmp_path / "a" / "b", "../b")
    link(tmp_path / "b" / "a", "../a")
    found = names(tmp_path)
    assert "a/x.jpg" in found and "b/a/x.jpg" in found and len(found) < 10


def test_a_snapshot_of_a_hugging_face_cache_reads_its_blobs(tmp_path: Path) -> None:
    repository = tmp_path / "datasets--x--AID"
    write(repository / "blobs" / "0123")
    link(repository / "snapshots" / "rev" / "AID" / "River" / "river_1.jpg", "../../../../blobs/0123")
    link(repository / "snapshots" / "rev" / "secret", "../../../elsewhere")
    write(tmp_path / "elsewhere")
    assert names(repository / "snapshots" / "rev") == ["AID/River/river_1.jpg"]
    assert names(repository / "snapshots" / "rev" / "AID") == ["River/river_1.jpg"]


def test_a_link_to_a_name_that_is_too_long_is_a_broken_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"x")
    (tmp_path / "a" / "y.png").symlink_to("y" * 300)
    with open_tree(tmp_path) as tree:
        assert "a/x.png" in tree.names() and "a/y.png" not in tree.names()

"""Trees: the same files from a directory and from archives, and nothing that a hostile archive wants."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geozero.common.errors import BadRecord, InputError
from geozero.sources.readers import archives
from geozero.sources.readers.annotations import json_items
from geozero.sources.readers.archive_members import clean_name
from geozero.sources.readers.tree import open_tree

FILES = {"set/a/one.jpg": b"1" * 700, "set/a/two.jpg": b"22", "set/list.json": b"[]", "set/empty.txt": b""}


def unpacked(root: Path) -> Path:
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def zipped(path: Path, files: dict[str, bytes] = FILES) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: dict[str, bytes] = FILES, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def packed(kind: str, place: Path) -> Path:
    if kind == "directory":
        return unpacked(place / "tree")
    if kind == "zip":
        return zipped(place / "tree.zip")
    return tarred(place / f"tree.{kind}", mode="w" + kind.removeprefix("tar").replace(".", ":"))


@pytest.mark.parametrize("kind", ["directory", "zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_a_tree_is_the_same_however_it_is_packed(kind: str, tmp_path: Path) -> None:
    with open_tree(packed(kind, tmp_path)) as tree:
        assert tree.names() == sorted(FILES)
        home = tree.locate("the set", ["list.json"], ["a", "b"])
        assert home.names(suffixes=(".jpg",)) == ["a/one.jpg", "a/two.jpg"]
        assert home.directories() == ["a"] and tree.directories() == ["set"]
        assert {name: home.read(name.removeprefix("set/")) for name in FILES} == FILES
        assert "a/one.jpg" in home and "set/a/one.jpg" not in home
        with home.open("a/one.jpg") as first, home.open("a/two.jpg") as second:  # interleaved
            assert (first.read(1), second.read(), first.read()) == (b"1", b"22", b"1" * 699)
        with open_tree(unpacked(tmp_path / "plain")) as plain:
            assert tree.fingerprint() == plain.fingerprint()


def test_a_fingerprint_sees_a_changed_byte_and_a_changed_name(tmp_path: Path) -> None:
    prints = set()
    for number, change in enumerate([{}, {"set/list.json": b"{}"}, {"set/other.txt": b""}]):
        with open_tree(zipped(tmp_path / f"{number}.zip", {**FILES, **change})) as tree:
            prints.add(tree.fingerprint())
    assert len(prints) == 3


@given(
    st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "", "a", "\\", "C:", "\0"]), max_size=6).map("/".join)
)
def test_a_cleaned_name_stays_below_its_root(raw: str) -> None:
    name = clean_name(raw)
    if name is not None:
        assert not name.startswith("/") and "\\" not in name and "\0" not in name
        assert not {"..", ".", ""} & set(name.split("/"))
        assert clean_name(name) == name


@pytest.mark.parametrize(
    "evil", ["../../evil.jpg", "/etc/evil.jpg", "a/../../evil.jpg", "..\\evil.jpg", "C:\\evil.jpg"]
)
def test_names_that_lead_out_are_left_out(evil: str, tmp_path: Path) -> None:
    for path in (zipped(tmp_path / "t.zip", {evil: b"x", **FILES}), tarred(tmp_path / "t.tar", {evil: b"x", **FILES})):
        with open_tree(path) as tree:
            assert tree.names() == sorted(FILES)
            assert [reason for _, reason in tree.left_out()] == ["unsafe_name"]
            with pytest.raises(BadRecord, match="file_missing"):
                tree.read(evil)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar_are_left_out(kind: bytes, tmp_path: Path) -> None:
    path = tarred(tmp_path / "t.tar")
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("set/a/link.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with open_tree(path) as tree:
        assert tree.names() == sorted(FILES) and [name for name, _ in tree.left_out()] == ["set/a/link.jpg"]


def test_links_in_a_zip_and_in_a_directory_are_left_out(tmp_path: Path) -> None:
    with zipfile.ZipFile(zipped(tmp_path / "t.zip"), "a") as archive:
        info = zipfile.ZipInfo("set/link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with open_tree(tmp_path / "t.zip") as tree:
        assert tree.left_out() == [("set/link", "link")]
    secret = tmp_path / "secret"
    secret.mkdir()
    root = unpacked(tmp_path / "tree")
    (root / "set" / "link.jpg").symlink_to("/etc/passwd")
    (root / "away").symlink_to(secret)
    with open_tree(root) as tree:
        assert tree.names() == sorted(FILES)
        assert tree.left_out() == [("away", "link"), ("set/link.jpg", "link")]
        assert tree.at("set").left_out() == [("set/link.jpg", "link")]


def test_a_link_as_the_root_itself_is_the_users_own_choice(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(unpacked(tmp_path / "tree"))
    with open_tree(tmp_path / "link") as tree:
        assert tree.names() == sorted(FILES)


def test_what_systems_leave_behind_is_not_seen(tmp_path: Path) -> None:
    junk = {"__MACOSX/set/a/._one.jpg": b"", "set/.DS_Store": b"", "set/a/._two.jpg": b"", "set/a/Thumbs.db": b""}
    with open_tree(zipped(tmp_path / "t.zip", {**FILES, **junk})) as tree:
        assert tree.names() == sorted(FILES) and tree.left_out() == []


@pytest.mark.parametrize("size", [4, 60, 100, -1])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_a_truncated_archive_is_one_clear_line(kind: str, size: int, tmp_path: Path) -> None:
    path = packed(kind, tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    try:
        with open_tree(path) as tree:  # a cut inside the padding at the end harms no file
            assert kind.startswith("tar") and tree.names() == sorted(FILES)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)


def test_a_damaged_member_costs_itself(tmp_path: Path) -> None:
    path = zipped(tmp_path / "t.zip", {"a.bin": bytes(range(256)) * 40, "b.txt": b"fine"})
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(bytes(data))
    with open_tree(path) as tree:
        with pytest.raises(BadRecord, match="file_unreadable"):
            tree.read("a.bin")
        assert tree.read("b.txt") == b"fine"


def test_an_encrypted_member_is_left_out(tmp_path: Path) -> None:
    path = zipped(tmp_path / "t.zip")
    data = path.read_bytes()
    at = data.rindex(b"PK\x01\x02")  # the last member's flags in the central directory
    path.write_bytes(data[: at + 8] + b"\x01" + data[at + 9 :])
    with open_tree(path) as tree:
        assert tree.left_out() == [("set/empty.txt", "encrypted")]


@pytest.mark.parametrize(
    ("head", "word"),
    [(b"Rar!\x1a\x07\x00", "RAR archive .*`unrar x .*set.rar`"), (b"7z\xbc\xaf\x27\x1c", "7z"), (b"GIF89a", "no zip")],
)
def test_another_kind_of_file_says_what_it_is(head: bytes, word: str, tmp_path: Path) -> None:
    (tmp_path / "set.rar").write_bytes(head + b"\0" * 600)
    with pytest.raises(InputError, match=word):
        open_tree(tmp_path / "set.rar")


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MIN_UNPACKED_BYTES", 1 << 20)
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(8):
            file.write(b"\0" * (1 << 20))
    with pytest.raises(InputError, match="more than 200 times"):
        open_tree(path)
    path = zipped(tmp_path / "bomb.zip", {"zeros": b"\0" * (8 << 20)})
    with open_tree(path) as tree, pytest.raises(BadRecord, match="file_too_large"):
        tree.read("zeros", limit=1 << 20)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    for path in (zipped(tmp_path / "t.zip"), tarred(tmp_path / "t.tar"), unpacked(tmp_path / "tree")):
        with pytest.raises(InputError, match="more than 3 files"):
            open_tree(path)


def test_no_room_to_unpack_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives.tempfile, "TemporaryFile", Full)
    with pytest.raises(InputError, match="TMPDIR"):
        open_tree(packed("tar.gz", tmp_path))


def test_missing_and_empty_roots(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file or directory"):
        open_tree(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no files there"):
        open_tree(tmp_path / "empty")
    (tmp_path / "empty" / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match=r"left out .link"):
        open_tree(tmp_path / "empty")


def test_the_nearest_place_is_found_but_a_known_folder_comes_first(tmp_path: Path) -> None:
    files = {"WHU-RS19/River/a.jpg": b"", "deep/AID/River/b.jpg": b"", "deep/AID/Port/c.jpg": b""}
    with open_tree(zipped(tmp_path / "t.zip", files)) as tree:
        assert tree.locate("AID", [], ["River", "Port"], ["aid"]).names() == ["Port/c.jpg", "River/b.jpg"]
        assert tree.locate("WHU", [], ["River"]).names() == ["River/a.jpg"]
        with pytest.raises(InputError, match="'Lake' and one of 'River', 'Port'; found WHU-RS19, deep"):
            tree.locate("none", ["Lake"], ["River", "Port"])


def test_two_equal_places_are_a_question_to_the_user(tmp_path: Path) -> None:
    path = zipped(tmp_path / "t.zip", {"one/list.json": b"", "two/list.json": b""})
    with open_tree(path) as tree, pytest.raises(InputError, match="could be any of one, two"):
        tree.locate("the set", ["list.json"])


def test_archives_that_lie_in_the_tree_are_looked_into(tmp_path: Path) -> None:
    root = tmp_path / "download"
    root.mkdir()
    (root / "list.json").write_bytes(b"[]")
    zipped(root / "images.zip", {"images/a.jpg": b"a", "../evil": b"x"})
    with open_tree(root) as tree:
        home = tree.locate("the set", ["list.json", "images"])
        assert home.read("images/a.jpg") == b"a"
        assert tree.left_out() == [("images.zip:../evil", "unsafe_name")]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("set.tar.zst", "set.tar.zst is a Zstandard archive .* .unpack it with `unzstd .*set.tar.zst`"),
        ("set.rar", "set.rar is a RAR archive .* .unpack it with `unrar x .*set.rar`"),
        ("set.tar.gz", "set.tar.gz: this is an empty file .* .download it again"),
        ("set.z01", "set.z01 is part of a split archive .* .put all parts into one directory"),
        ("set.part1.rar", "part of a split archive .*`unrar x .*set.part1.rar`"),
        ("set.7z.001", "part of a split archive .*`7z x .*set.7z.001`"),
        ("set.zip.crdownload", "set.zip.crdownload is an unfinished download"),
    ],
)
def test_the_advice_names_the_archive(name: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with open_tree(tmp_path) as tree, pytest.raises(InputError, match=advice):
        tree.locate("the set", ["list.json"])


def test_the_advice_names_a_link(tmp_path: Path) -> None:
    root = unpacked(tmp_path / "tree")
    shutil.rmtree(root / "set" / "a")
    (root / "set" / "a").symlink_to(tmp_path)
    with open_tree(root) as tree, pytest.raises(InputError, match="links are not followed, such as set/a"):
        tree.locate("the set", ["a"])


def test_a_name_that_is_no_text_is_left_out(tmp_path: Path) -> None:
    root = unpacked(tmp_path / "tree")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff.jpg")).write_bytes(b"")
    with open_tree(root) as tree:
        assert [reason for _, reason in tree.left_out()] == ["name_not_utf8"]


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("around", ["stored", "deflated", "tar", "tar.gz"])
def test_an_archive_in_an_archive_is_looked_into(
    kind: str, around: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = zipped(tmp_path / "i.zip") if kind == "zip" else tarred(tmp_path / "i.tar")
    files = {"top/notes.txt": b"x", f"top/sets.{kind}": inner.read_bytes()}
    outer = tmp_path / "outer"
    if around.startswith("tar"):
        tarred(outer, files, "w" + around.removeprefix("tar").replace(".", ":"))
    else:
        with zipfile.ZipFile(outer, "w", zipfile.ZIP_STORED if around == "stored" else zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    # a file of that name beside the user is none of the data set's
    elsewhere = tmp_path / "elsewhere" / "top"
    elsewhere.mkdir(parents=True)
    (elsewhere / f"sets.{kind}").write_bytes(b"not this one")
    monkeypatch.chdir(elsewhere.parent)
    with open_tree(outer) as tree:
        home = tree.locate("the set", ("list.json",), ("a",))
        assert home.names() == ["a/one.jpg", "a/two.jpg", "empty.txt", "list.json"]
        assert {name: home.read(name) for name in home.names()} == {n.removeprefix("set/"): d for n, d in FILES.items()}


def test_a_damaged_archive_in_an_archive_is_one_line(tmp_path: Path) -> None:
    zipped(tmp_path / "outer.zip", {"top/sets.tar": b"no tar at all" * 99, "top/x.txt": b""})
    with open_tree(tmp_path / "outer.zip") as tree, pytest.raises(InputError, match=r"sets.tar"):
        tree.locate("the set", ("list.json",))


def test_an_archive_in_an_archive_may_be_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MIN_UNPACKED_BYTES", 1 << 20)
    zipped(tmp_path / "outer.zip", {"top/sets.tar": b"\0" * (3 << 20), "top/x.txt": b""})
    with open_tree(tmp_path / "outer.zip") as tree, pytest.raises(InputError, match="unpacks to more than"):
        tree.locate("the set", ("list.json",))


@pytest.mark.parametrize("packed", ["plain", "gz"])
def test_a_tar_that_breaks_off_between_two_files_is_damaged(packed: str, tmp_path: Path) -> None:
    path = tarred(tmp_path / "t.tar")
    with tarfile.open(path) as tar:
        end = tar.getmembers()[2].offset
    data = path.read_bytes()[:end]
    path.write_bytes(data if packed == "plain" else gzip.compress(data))
    with pytest.raises(InputError, match="the mark of its end is missing"):
        open_tree(path)


def test_what_is_left_out_of_an_archive_in_the_tree_is_listed(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path / "x.zip", {"set/locked.jpg": b"1"}).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "x.zip").write_bytes(data)
    with open_tree(tmp_path) as tree, pytest.raises(InputError, match=r"encrypted, such as set/locked\.jpg"):
        tree.locate("the set", ["locked.jpg"])
    zipped(tmp_path / "y.zip", {"set/open.jpg": b"1"})
    with open_tree(tmp_path) as tree:
        assert tree.locate("the set", ["open.jpg"]).left_out() == [("set/locked.jpg", "encrypted: in x.zip")]


def test_a_list_in_a_zip_of_another_compression_says_why_it_cannot_be_read(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path / "x.zip", {"list.json": b"[]"}).read_bytes())
    for mark, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(mark) + at] = 93  # Zstandard
    (tmp_path / "x.zip").write_bytes(data)
    with open_tree(tmp_path / "x.zip") as tree, pytest.raises(InputError, match="compression method"):
        list(json_items(tree, "list.json"))

"""Images decoded by shards before their ingest: the same corpus bit for bit, and nothing decoded twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from geozero.common.errors import InputError
from geozero.corpus.images import Reduction
from geozero.curation.ingest import decoding
from geozero.curation.ingest.checks import Checks
from geozero.curation.ingest.decoded import DecodedImages, decode_shard
from geozero.curation.ingest.ingest import ingest
from geozero.sources import get

KINDS = {"jpg": "RGB", "png": "P", "tif": "RGB"}  # a JPEG keeps its bytes, the others are stored anew


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for n in range(24):
        suffix = list(KINDS)[n % 3]
        place = tmp_path / f"root/class_{n % 4}/{n}.{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (40 + n, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(KINDS[suffix]).save(place)
    (tmp_path / "root/class_0/broken.jpg").write_bytes(b"\xff\xd8\xff" + bytes(200))
    (tmp_path / "root/class_1/copy.jpg").write_bytes((tmp_path / "root/class_0/0.jpg").read_bytes())
    return tmp_path / "root"


def files(corpus: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(corpus.iterdir())}


def decode(root: Path, out: Path, of: int, checks: Checks | None = None) -> int:
    shards = (decode_shard(get("class_folders"), root, out, n, of, checks or Checks()) for n in range(of))
    return sum(shards)


@pytest.mark.parametrize("of", [1, 3])
@pytest.mark.parametrize("checks", [Checks(), Checks(store_side=32)])
def test_a_sharded_ingest_writes_the_same_bytes_and_decodes_nothing_itself(
    of: int, checks: Checks, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest("class_folders", root, tmp_path / "plain/corpus", checks=checks)
    out = tmp_path / "sharded/corpus"
    assert decode(root, out, of, checks) == 26
    monkeypatch.setattr(decoding.Decoders, "begin", refused)
    ingest("class_folders", root, out, checks=checks)
    assert files(out) == files(tmp_path / "plain/corpus")
    assert [path.name for path in out.parent.iterdir()] == ["corpus"]


def refused(*_: Any) -> Any:
    raise AssertionError("an image was decoded again")


def test_what_was_decoded_otherwise_or_has_changed_since_is_decoded_anew(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "sharded/corpus"
    decode(root, out, 2)
    changed = root / "class_0/0.jpg"
    Image.new("RGB", (90, 60), "red").save(changed)
    assert DecodedImages(out, Checks().max_pixels, Reduction(10)).find([changed.read_bytes()]) is None
    ingest("class_folders", root, out)
    ingest("class_folders", root, tmp_path / "plain/corpus")
    assert files(out) == files(tmp_path / "plain/corpus")


def test_a_shard_of_a_missing_set_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with pytest.raises(InputError):
        decode(tmp_path / "root", tmp_path / "out/corpus", 2)
    assert not (tmp_path / "out").exists()

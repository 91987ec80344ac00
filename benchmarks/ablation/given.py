"""The ablation on corpora of one's own, in place of those that the parameters name: `--corpus`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from geozero.common.errors import InputError
from geozero.corpus.sample import Split, digest
from geozero.corpus.store import MANIFEST, Corpus, refer_images
from geozero.corpus.writer import CorpusWriter
from geozero.workspace import Workspace


@dataclass(frozen=True)
class GivenCorpora(Workspace):
    """A checkout whose questions are those of some corpora: arms learn from the train split of all of them.

    Attributes:
        given: the corpora; their val split chooses, their test split is reported.
        learned: one corpus with the train samples of all; None: `given` is one.
        selected: a GeoZero-Hard of these corpora for the arms of RL; None: all train samples.
    """

    given: tuple[Path, ...] = ()
    learned: Path | None = None
    selected: Path | None = None

    @property
    def raw(self) -> Path:
        return self.learned or self.given[0]

    @property
    def instruct(self) -> Path:
        return self.raw

    @property
    def hard(self) -> Path:
        return self.selected or self.raw

    @property
    def corpora(self) -> list[Path]:
        return list(self.given)

    @property
    def val_corpora(self) -> list[Path]:
        return self.corpora_with("val")


def given_corpora(
    workspace: Workspace, corpora: Sequence[Path], out: Path, selected: Path | None = None
) -> GivenCorpora:
    """The workspace with these corpora; several are put together once, under `out`/data.

    Raises:
        InputError: one is no corpus, or a split that is needed has no samples.
    """
    given = tuple(path.resolve() for path in corpora)
    found = GivenCorpora(workspace.file, workspace.settings, given, selected=selected)
    needed: tuple[Split, ...] = ("train", "val", "test")
    for split in needed:
        if not found.corpora_with(split):
            what = f"no {split} samples in {', '.join(map(str, corpora))}"
            raise InputError(what, "--corpus", "arms learn from train, β is chosen on val, test is reported")
    return found if len(given) == 1 else replace(found, learned=_together(given, out / "data" / "train"))


def _together(corpora: Sequence[Path], path: Path) -> Path:
    made_by = {"ablation": "train samples", "of": digest("\n".join(Corpus(one).digest for one in corpora).encode())}
    if (path / MANIFEST).is_file() and Corpus(path).manifest["made_by"] == made_by:
        return path
    with CorpusWriter(path, made_by) as writer:
        for corpus in map(Corpus, corpora):
            samples = list(corpus.samples("train"))
            refer_images(writer, corpus, {sample.image_id for sample in samples})
            for sample in samples:
                writer.add(sample)
    return path

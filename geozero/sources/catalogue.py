"""Where the data sets are to be had: `catalogue.yaml`, read and checked. Nothing here goes online."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from geozero.common.errors import InputError
from geozero.sources.readers.archive_members import clean_name

CATALOGUE = Path(__file__).with_suffix(".yaml")


class RemoteFile(BaseModel):
    """A file of a way; its name is a path below the set's directory.

    `hash` is `md5:…` or `sha256:…`, `bytes` the exact size where no hash is published; `extra` only on request.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    url: str = ""
    hash: str | None = None
    bytes: int | None = None
    extra: bool = False

    @field_validator("name")
    @classmethod
    def _stays_inside(cls, name: str) -> str:
        if clean_name(name) != name or name.startswith("."):
            raise ValueError("a file name that leaves its directory")
        return name

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if url and not url.startswith(("https://", "http://")):
            raise ValueError("an address that is not HTTP")
        return url


class Way(BaseModel):
    """One way to get a data set. `catalogue.yaml` explains kinds and fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["http", "zenodo", "hub", "manual"]
    by: str
    seen: date
    where: str
    size: str = ""
    files: tuple[RemoteFile, ...] = ()
    doi: str = ""
    repo: str = ""
    revision: str = "main"
    include: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    then: tuple[str, ...] = ()
    note: str = ""

    @model_validator(mode="after")
    def _is_complete(self) -> Way:
        needed = {"http": self.files, "zenodo": self.doi and self.files, "hub": self.repo, "manual": self.steps}
        if not needed[self.kind] or (self.kind == "http" and not all(file.url for file in self.files)):
            raise ValueError(f"an incomplete way of kind {self.kind}")
        return self

    @property
    def address(self) -> str:
        """One address for people."""
        if self.kind == "http":
            return self.files[0].url
        if self.kind == "zenodo":
            return f"https://doi.org/{self.doi}"
        if self.kind == "hub":
            return f"https://huggingface.co/datasets/{self.repo}"
        links = [word.rstrip(",;") for step in self.steps for word in step.split() if word.startswith(("http", "s3:"))]
        return links[0] if links else ""

    def instructions(self, directory: Path | str) -> Iterator[str]:
        """The steps for a person, with the set's own directory filled in."""
        yield from (step.replace("{directory}", str(directory)) for step in self.steps)


class Entry(BaseModel):
    """A data set: its page, published counts where they are known, and the ways to get it, the best one first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    page: str
    images: int | None = None
    samples: int | None = None
    ways: tuple[Way, ...]

    @property
    def automatic(self) -> Way | None:
        """The first way that needs no person."""
        return next((way for way in self.ways if way.kind != "manual"), None)


@cache
def catalogue(path: Path = CATALOGUE) -> dict[str, Entry]:
    """All entries by source name."""
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {name: Entry.model_validate(entry) for name, entry in read.items()}


def entry(source: str) -> Entry:
    """The entry of a source.

    Raises:
        InputError: there is none: an unknown name, or a layout for your own data.
    """
    known = catalogue()
    if source not in known:
        raise InputError(f"nothing is known about where to get '{source}'", hint=f"one of {', '.join(known)}")
    return known[source]

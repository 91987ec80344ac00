"""The files of a data set on the Hugging Face hub, with the addresses and checksums that the hub lists.

huggingface_hub lists them and knows the user's login. The files themselves go through `http`, because a download of
huggingface_hub 1.33 that is killed starts its file over, and single files here have 8 GB.
"""

from __future__ import annotations

import os
from fnmatch import fnmatch

from geozero.common.errors import InputError
from geozero.curation.download.http import GIT_BLOB, RESUME_HINT
from geozero.sources.catalogue import RemoteFile, Way
from geozero.sources.readers.archive_members import clean_name

OFFLINE = "HF_HUB_OFFLINE"
_REASONS = {
    401: "it asks for a login, or does not exist",
    403: "it asks for an agreement on its page",
    404: "it is gone",
}


def allow_hub() -> None:
    """Let this process go to the hub, without telemetry; call it before huggingface_hub is imported.

    Raises:
        InputError: the user has set HF_HUB_OFFLINE.
    """
    if os.environ.get(OFFLINE, "").upper() in ("1", "TRUE", "YES", "ON"):
        raise InputError(f"{OFFLINE} is set, so nothing is fetched from the hub", hint=f"run it with {OFFLINE}=0")
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def list_repository(way: Way) -> tuple[list[RemoteFile], dict[str, str]]:
    """The files of a way of kind `hub`, and the headers to ask for them with (the user's login, if there is one).

    Raises:
        InputError: no such data set, no access, no connection, or a hostile file name.
    """
    import httpx
    from huggingface_hub import HfApi, RepoFile, get_token, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    try:
        entries = HfApi().list_repo_tree(way.repo, repo_type="dataset", revision=way.revision, recursive=True)
        files = [f for f in entries if isinstance(f, RepoFile) and any(fnmatch(f.path, p) for p in way.include)]
    except (HfHubHTTPError, httpx.HTTPError) as error:
        raise InputError(f"cannot be fetched: {_reason(error)}", way.address, RESUME_HINT) from None
    if not files:
        raise InputError("holds none of the files expected there", way.address, "look at its page; it may have moved")
    for file in files:
        if not _is_harmless(file.path):
            what = f"holds a file of a hostile name, {ascii(file.path)[:80]}"
            raise InputError(what, way.address, "fetch it by hand")
    listed = [
        RemoteFile(
            name=file.path,
            url=hf_hub_url(way.repo, file.path, repo_type="dataset", revision=way.revision),
            hash=f"sha256:{file.lfs.sha256}" if file.lfs else f"{GIT_BLOB}{file.blob_id}",
            bytes=file.size,
        )
        for file in files
    ]
    token = get_token()
    return listed, {"authorization": f"Bearer {token}"} if token else {}


def _is_harmless(name: str) -> bool:
    return clean_name(name) == name and name.isprintable() and not any(p.startswith(".") for p in name.split("/"))


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None)
    if response is None:
        return f"the connection failed ({type(error).__name__})"
    return _REASONS.get(response.status_code, f"{response.status_code} {response.reason_phrase}")

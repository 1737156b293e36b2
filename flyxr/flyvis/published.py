"""The ensemble that Lappalainen et al. 2024 published: where its files are, downloading them, and checking copies."""

from __future__ import annotations

import csv
import hashlib
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.resources import files as package_files
from posixpath import join
from typing import TYPE_CHECKING, NamedTuple

from flyxr import downloads
from flyxr.errors import DownloadError, Problem
from flyxr.flyvis.files import open_tree, read_file
from flyxr.flyvis.results import find_ensemble
from flyxr.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

COMMIT = "97d6b69d879d3ccb53301fb083ef2da4996b0563"
REPOSITORY = "https://github.com/TuragaLab/flyvis"
URL = f"https://raw.githubusercontent.com/TuragaLab/flyvis/{COMMIT}"
"""Address of the files, followed by their path in the repository."""
LICENCE = "MIT, copyright 2023 Lappalainen, Tschopp, McGill, Macke, Turaga"
CITATION = (
    "Lappalainen et al. 2024, Connectome-constrained networks predict neural activity across the fly visual system, "
    "Nature 634, 1132-1140"
)

_N_THREADS = 8
_MAX_FAILURES = 4  # without a network, each attempt may wait for the timeout


class PublishedFile(NamedTuple):
    """A file of the ensemble: path in the repository, SHA-256 of its content, and size in bytes."""

    path: str
    sha256: str
    n_bytes: int


def published_files() -> list[PublishedFile]:
    """Files of the published ensemble, a checkpoint and a validation error for each model.

    Examples
    --------
    >>> table = published_files()
    >>> len(table), table[0].path
    (100, 'data/results/opticflow/000/0000/best_chkpt')
    """
    with (package_files("flyxr") / "data" / "pretrained_files.csv").open(encoding="utf-8") as file:
        return [PublishedFile(row["path"], row["sha256"], int(row["bytes"])) for row in csv.DictReader(file)]


def fetch_files(
    table: Sequence[PublishedFile], folder: Path, *, url: str = URL, progressbar: bool = True, timeout: float = 60
) -> None:
    """Download the files that a folder does not have yet; those in it with the right hash are kept.

    Parameters
    ----------
    table
        Files to fetch.
    folder
        Folder that keeps them, under their paths. No other process may fetch into it at the same time.
    url
        Address that the paths are appended to.
    progressbar
        Show how many files are there.
    timeout
        Seconds to wait for the server.

    Raises
    ------
    DownloadError
        A ConnectionError. If files cannot be downloaded or have another hash, which it names. Whole files are kept,
        others are not. After some failures, no more downloads are started.
    """
    for leftover in folder.rglob("tmp*"):  # of a process that was killed
        leftover.unlink()
    for directory in {(folder / file.path).parent for file in table}:
        directory.mkdir(parents=True, exist_ok=True)

    reasons: dict[str, str] = {}
    n_bytes = sum(file.n_bytes for file in table)
    pool = ThreadPoolExecutor(_N_THREADS)
    what = "fetch the published models"
    with downloads.quiet(), progress_bar(what, total=n_bytes, unit="B", delay=0, is_wanted=progressbar) as bar:
        futures = {pool.submit(_fetch, file, folder, url, timeout): file for file in table}
        try:
            for future in as_completed(futures):
                reason, file = future.result(), futures[future]
                if reason is None:
                    bar.update(file.n_bytes)
                else:
                    reasons[file.path] = reason
                if len(reasons) == _MAX_FAILURES:
                    break
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if reasons:
        n_whole = sum(not future.cancelled() and future.result() is None for future in futures)
        raise DownloadError(
            *(f"expected {path} as published, got {reason}" for path, reason in reasons.items()),
            Problem(
                f"{n_whole} of {len(table)} files are in {folder} and are not fetched again",
                "call again to fetch the others, choose another address with mirror=, or a copy with source=",
                "repeat the command to fetch the others, choose another address with --mirror, or a copy with --from",
            ),
            heading=f"could not fetch the published ensemble from {url}",
        )


def _fetch(file: PublishedFile, folder: Path, url: str, timeout: float) -> str | None:
    """Download a file unless the folder has it; the reason if that fails, and None if it is there."""
    target = folder / file.path
    try:
        downloads.download(
            f"{url}/{file.path}",
            target.name,
            cache=target.parent,
            known_hash=file.sha256,
            progressbar=False,
            timeout=timeout,
        )
    except DownloadError as error:  # not kept, since its traceback holds the open connection
        return _reason(error)
    return None


def _reason(error: DownloadError) -> str:
    """Why a download failed, without the layers of the HTTP library."""
    reason = str(error.__cause__ or error)
    _, is_nested, innermost = reason.rpartition("(Caused by ")
    return innermost.removesuffix(")") if is_nested else reason


def find_wrong_files(path: Path, table: Sequence[PublishedFile]) -> Iterator[Problem]:
    """List the files of a copy of the published ensemble that are missing or differ from those published.

    Only copies in the layout of the publication, with directories of four digits, are compared: no hashes are published
    for files of the current layout.

    Parameters
    ----------
    path
        Directory or zip.
    table
        The published files.
    """
    with open_tree(path) as (tree, start):
        ensemble, directories = find_ensemble(tree, start)
        if not all(len(directory.rpartition("/")[2]) == 4 for directory in directories):
            return
        for file in table:
            *_, model, name = file.path.split("/")
            place = join(ensemble, model, name)
            if name not in tree.children(join(ensemble, model))[1]:
                yield Problem(f"expected {tree.label(place)}, found no such file", "copy it again")
            elif hashlib.sha256(read_file(tree, place)).hexdigest() != file.sha256:
                yield Problem(f"expected {tree.label(place)} as published, got another file", "copy it again")

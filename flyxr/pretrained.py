"""The published ensemble, fetched once and converted to a store in the user's cache folder."""

from __future__ import annotations

import shutil
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import connectome as connectomes
from flyxr import flyvis, identity, provenance, store
from flyxr.arguments import Arguments
from flyxr.ensemble import NAMED, EnsembleError, open_ensemble
from flyxr.errors import FlyxrError, FlyxrWarning, Problem, UnwritableError, raise_problems
from flyxr.paths import local_path

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import xarray as xr

    from flyxr.flyvis import PublishedFile

NAME = "flyvis"
"""Name under which :func:`flyxr.open_ensemble` opens the published ensemble."""
PARAMETERS_HASH = "02d2dadb767469e8"
"""Hash of the parameters of all models, by which a copy without published hashes of its files is recognised."""


def fetch_pretrained(
    *,
    source: str | os.PathLike[str] | None = None,
    mirror: str | None = None,
    progressbar: bool = True,
    timeout: float = 60,
) -> xr.Dataset:
    """Fetch the 50 published models once; from then on ``open_ensemble("flyvis")`` opens them.

    The files (3 MB) are downloaded from the public repository of their authors, compared with known SHA-256 hashes, and
    converted to a zarr store. Files and store are kept in ``flyxr`` in the user's cache folder, which the environment
    variable ``XDG_CACHE_HOME`` sets on Linux. Call again after a broken connection: whole files are not fetched again,
    and parts of files are not kept. If the store is there already, nothing is read or downloaded.

    Parameters
    ----------
    source
        Directory or zip with the models, for machines without a network: in the layout of the repository
        (``data/results/opticflow/000/0000``, ...), such as its zip from GitHub, or in that of flyvis's own download
        (``results/flow/0000/000``, ...). Nothing is downloaded if it is given.
    mirror
        Address to download from instead, ``http://`` or ``https://``, to which ``/data/results/opticflow/...`` is
        appended.
    progressbar
        Show the progress of the download.
    timeout
        Seconds to wait for the server.

    Returns
    -------
    Dataset
        An ensemble, as from ``open_ensemble("flyvis")``, sorted by task error, lowest first. The attributes ``source``,
        ``licence`` and ``citation`` say where it is from, under which licence, and what to cite.

    Raises
    ------
    DownloadError
        A ConnectionError. If files cannot be downloaded, or have another hash; it names them.
    EnsembleError
        A ValueError. If ``source`` does not hold the published models; it names the files that differ.
    MissingError
        A FileNotFoundError. If there is nothing at ``source``.
    InputError
        A ValueError. If both ``source`` and ``mirror`` are given, or an argument is invalid.
    UnwritableError
        An OSError. If the cache folder cannot be written.

    Notes
    -----
    Lappalainen et al. 2024, Connectome-constrained networks predict neural activity across the fly visual system,
    Nature 634, 1132-1140; MIT licence. The parameters are those of flyvis's current release, bit for bit.

    Examples
    --------
    >>> fetch_pretrained(mirror="my-mirror")
    Traceback (most recent call last):
        ...
    flyxr.errors.InputError: expected mirror as an address that begins with http:// or https://, got 'my-mirror': ...
    """
    arguments = Arguments()
    timeout = arguments.number("timeout", timeout, "s", above=0)
    if source is not None and mirror is not None:
        arguments.problems.append(
            Problem(
                "expected source or mirror, got both",
                "leave one out: with a source nothing is downloaded",
                "leave out --from or --mirror: with --from nothing is downloaded",
            )
        )
    if mirror is not None and not str(mirror).lower().startswith(("http://", "https://")):
        text = f"expected mirror as an address that begins with http:// or https://, got {mirror!r}"
        arguments.problems.append(Problem(text, "for files on this machine pass source=", "for files use --from"))
    arguments.raise_problems()
    copy = None if source is None else local_path(source, "source")
    path = NAMED[NAME].find()
    with _exclusive(path):
        if path.exists():
            with suppress(FlyxrError), warnings.catch_warnings():  # a damaged one is replaced
                warnings.simplefilter("ignore", FlyxrWarning)
                return open_ensemble(NAME)
        for leftover in path.parent.glob(f"{path.name}.partial-*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        table = flyvis.published_files()
        if copy is None:
            copy = path.parent / f"flyvis-{flyvis.COMMIT[:7]}"
            url = flyvis.URL if mirror is None else mirror.rstrip("/")
            flyvis.fetch_files(table, copy, url=url, progressbar=progressbar, timeout=timeout)
        store.save(_read_published(copy, table), path, overwrite=path.exists())
    return open_ensemble(NAME)


def _exclusive(path: Path) -> AbstractContextManager[Any]:
    """Lock, beside a store, that one process holds at a time."""
    import filelock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        hint = "choose another cache folder with the environment variable XDG_CACHE_HOME"
        raise UnwritableError(
            Problem(f"cannot write {path.parent}: {error.strerror}", hint), code=error.errno
        ) from error
    return lock


def _read_published(copy: Path, table: Sequence[PublishedFile]) -> xr.Dataset:
    """Published ensemble in a directory or zip, with its names, source, licence and citation."""
    raise_problems(EnsembleError, f"{copy} is not the published ensemble", flyvis.find_wrong_files(copy, table))
    ensemble = open_ensemble(copy, connectome=connectomes.open_connectome())
    found = parameters_hash(ensemble)
    if found != PARAMETERS_HASH:
        n_models = ensemble.sizes["model"]
        raise EnsembleError(
            Problem(
                f"{copy}: expected the {len(table) // 2} published models, got {n_models} with other parameters",
                "open them with fx.open_ensemble, or fetch the published ones without source=",
                "import them with `flyxr import-flyvis`, or fetch the published ones without --from",
            )
        )
    # The directories of the first publication have other names, in the same order.
    names = np.array([f"flow/0000/{rank:03}" for rank in range(ensemble.sizes["model"])], dtype=object)
    ensemble = ensemble.assign_coords(model_name=ensemble["model_name"].copy(data=names))
    del ensemble.attrs[provenance.ATTR]  # names folders of this machine
    ensemble.attrs |= {
        "source": f"{flyvis.REPOSITORY}/tree/{flyvis.COMMIT}",
        "licence": flyvis.LICENCE,
        "citation": flyvis.CITATION,
    }
    hashes = {"connectome": ensemble.attrs["connectome"], "ensemble": found}
    return provenance.add(ensemble, "fetch_pretrained", {"commit": flyvis.COMMIT}, hashes=hashes)


def parameters_hash(ensemble: xr.Dataset) -> str:
    """Hash of the parameters of all models in their order.

    Examples
    --------
    >>> import flyxr as fx
    >>> ensemble = fx.sample_ensemble(2, seed=0)
    >>> parameters_hash(ensemble) == parameters_hash(ensemble.isel(model=[1, 0]))
    False
    """
    return identity.combine(identity.model_hashes(ensemble[name].values for name in flyvis.PARAMETERS))

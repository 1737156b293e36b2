"""A lock of a store in object storage, which has no locks: an object that its owner renews as long as it lives."""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from flyxr.errors import FlyxrError, Problem
from flyxr.store import places
from flyxr.store.ledger import LEDGER_FILE
from flyxr.sweeping.base import SweepError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from upath import UPath

RENEW_SECONDS = 20.0
EXPIRE_SECONDS = 120.0
"""Time without a sign of the owner after which others may take the lease, s."""
_LEASE_FILE = LEDGER_FILE.with_suffix(".lease").as_posix()


@contextmanager
def exclusive_lease(path: Path) -> Iterator[None]:
    """Keep other sweeps from writing to a store in object storage.

    The lease is taken with a conditional write where the storage has one, as S3 does. That of a process that died on
    this machine is taken over at once, that of another machine after :data:`EXPIRE_SECONDS`.

    Raises
    ------
    SweepError
        If another sweep holds it.
    """
    place = cast("UPath", path) / _LEASE_FILE
    token = secrets.token_hex(8)
    _take(place, token, path)
    is_done = threading.Event()
    keeper = threading.Thread(target=_renew, args=(place, token, is_done), name="flyxr-lease", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        is_done.set()
        keeper.join()
        if _read(place).get("token") == token:
            with suppress(FlyxrError):  # it expires
                places.remove(cast("UPath", path), [_LEASE_FILE])


def _content(token: str) -> bytes:
    lease = {"token": token, "host": platform.node(), "pid": os.getpid(), "time": time.time()}
    return json.dumps(lease).encode()


def _read(place: UPath) -> dict[str, Any]:
    """Content of a lease; empty if there is none, or it cannot be understood."""
    try:
        lease = json.loads(places.read_bytes(place, 2**16))
        return {**lease, "time": float(lease["time"]), "pid": int(lease["pid"])}
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return {}


def _take(place: UPath, token: str, path: Path) -> None:
    for _ in range(3):
        try:
            places.write_bytes(place, _content(token), exclusive=True)
            return
        except FileExistsError:
            lease = _read(place)
            if lease and not _is_over(lease):
                age = max(0.0, time.time() - lease["time"])
                owner = f"process {lease['pid']} on {lease['host']}, last sign {age:.0f} s ago"
                hint = f"wait for it, or stop it; if it died, call again in {max(1.0, EXPIRE_SECONDS - age):.0f} s"
                raise SweepError(Problem(f"another sweep is writing to {path} ({owner})", hint)) from None
            places.remove(place.parent, [place.name])
    raise SweepError(Problem(f"another sweep is starting to write to {path}", "wait for it, or stop it"))


def _is_over(lease: dict[str, Any]) -> bool:
    """Whether the owner of a lease is dead, or gave no sign for long."""
    if time.time() - lease["time"] > EXPIRE_SECONDS:
        return True
    if lease.get("host") != platform.node():
        return False
    try:
        os.kill(lease["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _renew(place: UPath, token: str, is_done: threading.Event) -> None:
    while not is_done.wait(RENEW_SECONDS):
        with suppress(FlyxrError):  # a failure is like no sign for a while
            places.write_bytes(place, _content(token))

"""Stores on other machines and in zips, as zarr sees them: metadata that were checked, and files that must exist."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from zarr.abc.store import OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype

from flyxr.store import places
from flyxr.store.files import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from upath import UPath
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype


class RemoteStore(Store):
    """Files of a place, for zarr.

    Parameters
    ----------
    place
        Place of the store.
    metadata
        Content of the metadata files by path, which are not read again; every other metadata file is absent.
    check_missing
        Called with the path of a file that does not exist; raises if the store should have it. Otherwise zarr takes the
        file for a chunk of fill values.
    is_read_only
        Whether zarr may not write.

    Attributes
    ----------
    written
        Files that were written, by path. They are kept in memory, so that a caller sends each as a whole.
    """

    def __init__(
        self,
        place: UPath,
        metadata: Mapping[str, bytes],
        check_missing: Callable[[str], None] | None = None,
        *,
        is_read_only: bool = True,
    ) -> None:
        super().__init__(read_only=is_read_only)
        self.place, self.metadata, self.check_missing = place, dict(metadata), check_missing
        self.written: dict[str, bytes] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteStore) and (self.place, self.metadata) == (other.place, other.metadata)

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return str(self.place)

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Content of a file, or a part of it; None if it does not exist."""
        prototype = default_buffer_prototype() if prototype is None else prototype
        content = self.written.get(key, self.metadata.get(key))
        if content is not None:
            start, end = _span(byte_range)
            return prototype.buffer.from_bytes(content[start:end])
        if key.rsplit("/", 1)[-1] == "zarr.json":
            return None
        try:
            content = await asyncio.to_thread(places.read_bytes, self.place / key, span=_span(byte_range))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            if self.check_missing is not None:
                await asyncio.to_thread(self.check_missing, key)
            return None
        return prototype.buffer.from_bytes(content)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Parts of files."""
        return list(await asyncio.gather(*(self.get(key, prototype, span) for key, span in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is a file."""
        return key in self.written or key in self.metadata or await asyncio.to_thread(places.exists, self.place / key)

    supports_writes = True
    supports_deletes = False
    supports_listing = True

    async def set(self, key: str, value: Buffer) -> None:
        """Keep the content of a file for the caller."""
        self.written[key] = value.to_bytes()

    async def delete(self, key: str) -> None:
        """Refuse, since blocks of a sweep are only replaced."""
        raise StoreError(f"expected {self.place} to be written only, got a request to delete {key}")

    async def list(self) -> AsyncIterator[str]:
        """Paths of the metadata files."""
        for key in self.metadata:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Paths of the metadata files below a prefix."""
        for key in self.metadata:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names of the arrays."""
        start = f"{prefix.rstrip('/')}/" if prefix else ""
        for name in {key.removeprefix(start).split("/")[0] for key in self.metadata if key.startswith(start)}:
            yield name


def _span(request: Any) -> tuple[int | None, int | None]:
    """First and last byte of a request of zarr, as for :func:`flyxr.store.places.read_bytes`."""
    if isinstance(request, RangeByteRequest):
        return request.start, request.end
    if isinstance(request, OffsetByteRequest):
        return request.offset, None
    return (-request.suffix, None) if isinstance(request, SuffixByteRequest) else (None, None)

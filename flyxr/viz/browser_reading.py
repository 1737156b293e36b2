"""What the browser reads: the maps, courses and frames on display, and no others."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from flyxr import schema
from flyxr.errors import InputError, Problem
from flyxr.optics import GREY
from flyxr.selection import align_labels
from flyxr.viz import elements, selecting

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    import xarray as xr
    from numpy.typing import NDArray

CACHE_BYTES = 256 * 2**20
"""Largest size of the arrays that are kept, bytes."""

MAX_MODELS = 25
"""Largest number of models on display."""

MAX_FRAME_PIXELS, FRAME_BLOCK_BYTES = 200, 8 * 2**20
"""Longest edge of a frame on display, pixels, and size of the frames that are read at once."""

MAX_TEXT = 60


class Cache:
    """The arrays that were used last, up to a number of bytes.

    Examples
    --------
    >>> cache = Cache(max_bytes=100)
    >>> for key in "aba":
    ...     cache.add(key, np.zeros(10))
    >>> cache.get("a") is None, cache.get("b") is None
    (False, True)
    """

    def __init__(self, max_bytes: int = CACHE_BYTES) -> None:
        self.max_bytes, self.n_bytes = max_bytes, 0
        self._arrays: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()

    def get(self, key: Hashable) -> NDArray[Any] | None:
        """Array of a key, or None if it is not kept."""
        if key not in self._arrays:
            return None
        self._arrays.move_to_end(key)
        return self._arrays[key]

    def add(self, key: Hashable, array: NDArray[Any]) -> None:
        """Keep an array, and drop those that were used longest ago."""
        if key in self._arrays:
            self.n_bytes -= self._arrays.pop(key).nbytes
        self._arrays[key] = array
        self.n_bytes += array.nbytes
        while self.n_bytes > self.max_bytes and len(self._arrays) > 1:
            self.n_bytes -= self._arrays.popitem(last=False)[1].nbytes

    def get_or_read(self, key: Hashable, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Array of a key, read if it is not kept."""
        array = self.get(key)
        if array is None:
            array = read()
            self.add(key, array)
        return array


class Reader:
    """Responses, clusters and a movie as the browser reads them; labels become texts, and selections positions.

    Parameters
    ----------
    responses
        ``response`` (model, sample, time, cell_type, column), with ``luminance`` (sample, time, column) beside it.
    clusters
        Result of :func:`flyxr.cluster` for models among those of the responses.
    movie
        ``luminance`` (sample, time, y, x), with the samples of the responses.

    Raises
    ------
    ValueError
        If an argument is of another kind, the responses are empty, the clusters share no model and cell type with
        them, or the movie lacks samples of them.

    Examples
    --------
    >>> import xarray as xr
    >>> from flyxr import hexgrid
    >>> coords = {"time": [0.0, 0.01], **hexgrid.column_coords(1), "cell_type": "T4c"}
    >>> reader = Reader(xr.DataArray(np.ones((2, 7)), dims=("time", "column"), coords=coords))
    >>> reader.cell_types, reader.models, reader.read_maps(0, [0], [0]).shape
    (['T4c'], ['0'], (1, 1, 2, 7))
    """

    def __init__(self, responses: Any, clusters: Any = None, movie: Any = None) -> None:
        response = selecting.main_array(responses, "responses")
        if empty := [str(dim) for dim, length in response.sizes.items() if length == 0]:
            text = f"expected responses with at least one of each dim, got no {' and no '.join(empty)}"
            raise InputError(Problem(text, "check what was selected"))
        self.response = response.rename("response")
        self.lattice = elements.read_lattice(self.response)
        self.times: NDArray[np.float64] = self.response["time"].values
        self.cell_types, self.models, self.samples = (
            unique_texts(selecting.labels(self.response, dim)) for dim in ("cell_type", "model", "sample")
        )
        self.columns = unique_texts(self.lattice.column.tolist())
        self.sample_titles = _describe_samples(self.response, self.samples)
        self.model_titles = _describe_models(self.response, self.models)
        is_beside = hasattr(responses, "data_vars") and "luminance" in responses.data_vars
        self.luminance = (
            _fit(selecting.columns_seen(None, responses), self.response, "luminance") if is_beside else None
        )
        self.movie = None if movie is None else _fit(selecting.main_array(movie, "movie"), self.response, "a movie")
        if self.movie is not None:
            self.displayed = selecting.displayed_frames(self.movie["time"], self.times)
        self.places = {} if clusters is None else _read_places(clusters, self.response)
        self.cache = Cache()

    @property
    def has_columns(self) -> bool:
        """Whether there are enough columns for a map."""
        return self.lattice.u.size > 1

    @property
    def max_models(self) -> int:
        """Largest number of models whose maps are read at once."""
        return int(np.clip(CACHE_BYTES // (2 * 4 * self.times.size * self.lattice.u.size), 1, MAX_MODELS))

    @property
    def central_column(self) -> int:
        """Position of the column u = v = 0, or of the first if there is none."""
        return int(np.argmax((self.lattice.u == 0) & (self.lattice.v == 0)))

    def read_maps(self, cell_type: int, samples: Sequence[int], models: Sequence[int]) -> NDArray[np.float32]:
        """Responses (sample, model, time, column); those that are not kept are read in one go."""
        keys = {(sample, model): (cell_type, sample, model) for sample in samples for model in models}
        kept = {pair: self.cache.get(key) for pair, key in keys.items()}
        found = {pair: array for pair, array in kept.items() if array is not None}
        missing = [pair for pair in keys if pair not in found]
        if missing:
            rows, columns = (sorted({pair[axis] for pair in missing}) for axis in (0, 1))
            selected = self.response.isel(cell_type=cell_type, sample=rows, model=columns)
            values = selected.transpose("sample", "model", "time", "column").values.astype(np.float32)
            for sample, maps in zip(rows, values, strict=True):
                for model, array in zip(columns, maps, strict=True):
                    found[sample, model] = array
                    self.cache.add((cell_type, sample, model), array.copy())
        return np.stack([np.stack([found[sample, model] for model in models]) for sample in samples])

    def read_luminance(self, sample: int) -> NDArray[np.float32] | None:
        """Luminance (time, column) beside the responses, or None if there is none."""
        if self.luminance is None:
            return None
        shown = selecting.luminance_on_display(self.luminance.isel(sample=sample), self.times)
        return self.cache.get_or_read(("luminance", sample), lambda: shown.values.astype(np.float32))

    def read_frame(self, sample: int, time: int) -> NDArray[np.uint8] | None:
        """Frame (y, x) of the movie on display, as bytes; grey before the first and after the last."""
        movie = self.movie
        if movie is None:
            return None
        position = int(self.displayed[time])
        start, stop = _block(movie, max(position, 0))

        def read() -> NDArray[np.uint8]:
            frames = movie.isel(sample=sample, time=slice(start, stop))
            factor = -(-max(frames.sizes["y"], frames.sizes["x"]) // MAX_FRAME_PIXELS)
            frames = frames.coarsen({dim: min(factor, frames.sizes[dim]) for dim in ("y", "x")}, boundary="trim").mean()
            levels: NDArray[np.uint8] = np.rint(np.nan_to_num(frames.values, nan=GREY).clip(0, 1) * 255).astype(
                np.uint8
            )
            return levels

        frame: NDArray[np.uint8] = self.cache.get_or_read(("movie", sample, start), read)[max(position, 0) - start]
        return frame if position >= 0 else np.full_like(frame, round(GREY * 255))

    def opposite(self, sample: int) -> int | None:
        """Position of the sample that moves the other way and has all other parameters in common, or None."""
        coords = _sample_coords(self.response)
        if "angle" not in coords or coords["angle"].dtype.kind not in "fiu":
            return None
        angle = coords.pop("angle").astype(float)
        is_opposite = np.isclose((angle - angle[sample]) % 360, 180)
        for values in coords.values():
            is_opposite &= values == values[sample]
        return int(np.argmax(is_opposite)) if is_opposite.any() else None


def unique_texts(labels: Sequence[Any]) -> list[str]:
    r"""Short text of each label, on one line; a number tells equal ones apart.

    Examples
    --------
    >>> unique_texts([1, "1", "a\nb"])
    ['1', '1 (2)', 'a b']
    """
    texts: dict[str, None] = {}
    for label in labels:
        text = first = plain_text(label)
        number = 1
        while text in texts:
            number += 1
            text = f"{first} ({number})"
        texts[text] = None
    return list(texts)


def plain_text(value: Any) -> str:
    r"""Short text of a value, on one line, which Bokeh takes for no formula.

    Examples
    --------
    >>> plain_text(0.1 + 0.2), plain_text("a\tb$$c$$"), plain_text("")
    ('0.3', 'a b$ $c$ $', '(empty)')
    """
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = re.sub(r"\s+", " ", "".join(c if c.isprintable() else " " for c in text)).strip() or "(empty)"
    text = re.sub(r"\$(?=\$)", "$ ", text).replace("\\[", "\\ [").replace("\\(", "\\ (")
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 1]}…"


def _fit(luminance: xr.DataArray, response: xr.DataArray, name: str) -> xr.DataArray:
    """Luminance of the samples of the responses."""
    return align_labels(luminance, response["sample"], name)


def _sample_coords(response: xr.DataArray) -> dict[str, NDArray[Any]]:
    """Parameters of the stimuli."""
    return {str(n): c.values for n, c in response.coords.items() if c.dims == ("sample",) and n != "sample"}


def _describe_samples(response: xr.DataArray, texts: list[str]) -> list[str]:
    """Label of each sample with the parameters that differ between samples, at most three."""
    varying = [(name, values) for name, values in _sample_coords(response).items() if any(values != values[0])][:3]
    rows = [", ".join(f"{plain_text(n)} {plain_text(values[i])}" for n, values in varying) for i in range(len(texts))]
    return unique_texts([f"{text} ({row})" if row else text for text, row in zip(texts, rows, strict=True)])


def _describe_models(response: xr.DataArray, texts: list[str]) -> list[str]:
    """Label of each model with its name and its task error."""
    names, errors = (
        response[name].values.tolist() if name in response.coords and response[name].dims == ("model",) else None
        for name in ("model_name", "task_error")
    )
    titles = []
    for position, text in enumerate(texts):
        name = "" if names is None or str(names[position]) == text else f" · {plain_text(names[position])}"
        error = errors[position] if errors is not None else np.nan
        is_known = isinstance(error, int | float) and np.isfinite(error)
        titles.append(f"{text}{name} · error {error:.4g}" if is_known else f"{text}{name}")
    return unique_texts(titles)


def _block(movie: xr.DataArray, position: int) -> tuple[int, int]:
    """First frame, and last + 1, of the frames that are read with the one at a position."""
    if movie.chunks is not None:
        stops = np.cumsum(movie.chunksizes["time"])
        index = int(np.searchsorted(stops, position, side="right"))
        start, stop = int(stops[index]) - movie.chunksizes["time"][index], int(stops[index])
    else:
        start, stop = 0, movie.sizes["time"]
    n_frames = max(1, FRAME_BLOCK_BYTES // (4 * movie.sizes["y"] * movie.sizes["x"]))
    if movie.chunks is None:
        start = position // n_frames * n_frames
        stop = min(stop, start + n_frames)
    return start, stop


def _read_places(clusters: Any, response: xr.DataArray) -> dict[int, tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Place (model, 2) and cluster (model) of the models by position of the cell type; NaN and -1 where unknown."""
    dataset = schema.as_dataset(clusters, "clusters")
    if missing := [name for name in ("embedding", "cluster") if name not in dataset]:
        text = f"expected clusters with 'embedding' and 'cluster', got no {' and no '.join(missing)}"
        raise InputError(Problem(text, "call fx.cluster(responses.fly.central())", "compute them with `flyxr cluster`"))
    data, _ = schema.complete(dataset[["embedding", "cluster"]], "clusters")
    wanted = ("cell_type", "model", "component")
    if set(data["embedding"].dims) != set(wanted) or data.sizes["component"] < 2:
        text = f"expected an embedding of dims {wanted} and two components, got {dict(data['embedding'].sizes)}"
        raise InputError(Problem(text, "call fx.cluster with n_components=2"))
    data = data.transpose(*wanted).compute()
    models, cell_types = (response.indexes[dim].get_indexer(data[dim].values) for dim in ("model", "cell_type"))
    if not ((models >= 0).any() and (cell_types >= 0).any()):
        text = "expected clusters of models and cell types of the responses, got none in common"
        raise InputError(Problem(text, "cluster these responses with fx.cluster", "use `flyxr cluster` on this store"))
    places = {}
    for source, target in enumerate(cell_types):
        if target >= 0:
            place = np.full((response.sizes["model"], 2), np.nan)
            cluster = np.full(response.sizes["model"], -1)
            place[models[models >= 0]] = data["embedding"].values[source, models >= 0, :2]
            cluster[models[models >= 0]] = data["cluster"].values[source, models >= 0]
            places[int(target)] = (place, cluster)
    return places

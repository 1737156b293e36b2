"""The accessor ``.fly``: methods that delegate to public functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

from flyxr import selection, viz
from flyxr.clustering import members

if TYPE_CHECKING:
    from collections.abc import Iterable


@xr.register_dataset_accessor("fly")
@xr.register_dataarray_accessor("fly")
class FlyAccessor:
    """``data.fly``, for Datasets and DataArrays."""

    def __init__(self, data: xr.Dataset | xr.DataArray) -> None:
        self._data: Any = data

    def __repr__(self) -> str:
        from flyxr.viz.overview import overview  # loads parts of the store

        return overview(self._data)

    def _repr_html_(self) -> str:
        from flyxr.viz.overview import overview_html

        return overview_html(self._data)

    def celltype(self, names: str | Iterable[str]) -> Any:
        """Select cell types; see :func:`flyxr.selection.celltype`."""
        return selection.celltype(self._data, names)

    def central(self, names: str | Iterable[str] | None = None) -> Any:
        """Select the central column, and optionally cell types; see :func:`flyxr.selection.central`."""
        return selection.central(self._data, names)

    def to_neurons(self, connectome: xr.Dataset | None = None) -> Any:
        """Flatten to the cell order of flyvis; see :func:`flyxr.selection.to_neurons`."""
        return selection.to_neurons(self._data, connectome)

    def members(self, cell_type: str) -> Any:
        """Models in each cluster of a cell type; see :func:`flyxr.clustering.members`."""
        return members(self._data, cell_type)

    def hexmap(self, **options: Any) -> Any:
        """Draw values in their columns; see :func:`flyxr.viz.hexmap` for the options."""
        return viz.hexmap(self._data, **options)

    def traces(self, **options: Any) -> Any:
        """Draw time courses; see :func:`flyxr.viz.traces` for the options."""
        return viz.traces(self._data, **options)

    def animate(self, **options: Any) -> Any:
        """Play the frames of columns or of a movie; see :func:`flyxr.viz.animate` for the options."""
        return viz.animate(self._data, **options)

    def embedding(self, **options: Any) -> Any:
        """Draw clustered models in the plane of their embedding; see :func:`flyxr.viz.embedding` for the options."""
        return viz.embedding(self._data, **options)

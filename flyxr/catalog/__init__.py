"""Catalogs of stores, in the format of intake: published, listed, filtered and opened.

The files can be opened with intake alone: ``intake.open_catalog("catalog.yaml")["name"].to_dask()``.
"""

from __future__ import annotations

from flyxr.catalog.base import CatalogError
from flyxr.catalog.listing import Catalog, open
from flyxr.catalog.publishing import publish

__all__ = ["Catalog", "CatalogError", "open", "publish"]

"""Files of flyvis, read, written and fetched as plain arrays, without flyvis."""

from flyxr.flyvis.checkpoint import PARAMETERS, Layout
from flyxr.flyvis.configuration import MAX_EXTENT, META, PACKAGED_CONNECTOME, ConnectomeConfig, make_config
from flyxr.flyvis.files import EnsembleError
from flyxr.flyvis.published import (
    CITATION,
    COMMIT,
    LICENCE,
    REPOSITORY,
    URL,
    PublishedFile,
    fetch_files,
    find_wrong_files,
    published_files,
)
from flyxr.flyvis.results import MEASURES, Model, Results, read_connectome_of, read_results
from flyxr.flyvis.writing import write_model

__all__ = [
    "CITATION",
    "COMMIT",
    "LICENCE",
    "MAX_EXTENT",
    "MEASURES",
    "META",
    "PACKAGED_CONNECTOME",
    "PARAMETERS",
    "REPOSITORY",
    "URL",
    "ConnectomeConfig",
    "EnsembleError",
    "Layout",
    "Model",
    "PublishedFile",
    "Results",
    "fetch_files",
    "find_wrong_files",
    "make_config",
    "published_files",
    "read_connectome_of",
    "read_results",
    "write_model",
]

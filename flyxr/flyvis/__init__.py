"""Files of flyvis, read into plain arrays without flyvis."""

from flyxr.flyvis.checkpoint import PARAMETERS, Layout
from flyxr.flyvis.files import EnsembleError
from flyxr.flyvis.results import MEASURES, Model, Results, read_results

__all__ = ["MEASURES", "PARAMETERS", "EnsembleError", "Layout", "Model", "Results", "read_results"]

"""To and from flyvis: ensembles as directories that it opens, and the responses that it computes."""

from flyxr.interchange.exporting import export_flyvis
from flyxr.interchange.responses import from_flyvis

__all__ = ["export_flyvis", "from_flyvis"]

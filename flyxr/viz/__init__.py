"""Pictures of movies, renderings and responses, built with HoloViews on Bokeh.

Every function takes labelled data, leaves it untouched and gives a HoloViews object (or, for :func:`report`, a
page). Elements are styled for the Bokeh backend. A notebook starts with ``hv.extension("bokeh")`` as always with
HoloViews; where no backend is loaded yet, the first call loads Bokeh in the same way, and where another backend is
current it stays so.
"""

from flyxr.viz.frames import frames
from flyxr.viz.hexmap import hexmap
from flyxr.viz.report import report
from flyxr.viz.stimulus import stimulus_response
from flyxr.viz.traces import traces

__all__ = ["frames", "hexmap", "report", "stimulus_response", "traces"]

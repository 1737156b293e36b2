"""Pictures of movies, renderings and responses, built with HoloViews on Bokeh.

Every function takes labelled data, leaves it unchanged and returns a HoloViews object (or, for :func:`report`, the path
of a page). Elements are styled for the Bokeh backend. If no backend is loaded yet, the first call loads Bokeh; one that
is current stays current. In a notebook, ``%load_ext flyxr`` shows pictures as images, which stay in the file, and
``hv.extension("bokeh")`` shows them with tools and sliders, as usual with HoloViews.
"""

from flyxr import lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

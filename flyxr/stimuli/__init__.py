"""Stimuli as labelled Datasets, lazy where they can be large: movies of grey frames, and renderings on the columns."""

from flyxr import lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

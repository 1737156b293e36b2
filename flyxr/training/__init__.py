"""Training: models from a connectome and a task, or from recordings."""

from flyxr import lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

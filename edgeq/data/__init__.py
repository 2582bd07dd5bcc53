"""Sources of samples: npz, npy, folders, functions and arrays, checked against a model's inputs."""

from edgeq.data.feeds import Feed, Source
from edgeq.data.functions import open_function
from edgeq.data.sources import open_source
from edgeq.data.synthetic import synthetic

__all__ = ["Feed", "Source", "open_function", "open_source", "synthetic"]

"""The one version of both dists, `edgeq` and `edgeq-runtime`; their builds read it from here."""

__version__ = "0.1.0"

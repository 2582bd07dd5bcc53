"""Readers: a model file becomes an `edgeq.ir.Graph`, or one error that names all that is wrong."""

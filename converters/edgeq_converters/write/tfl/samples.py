"""Whether the samples of a free batch are apart: a file of batch 1 is run for one after the other.

Shapes do not tell (a mean over the batch spreads over it again; a first axis can be time), so the
float model is run: two samples together, and each alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import EdgeqError
from edgeq.ir import Graph
from edgeq_converters.write import onnx
from edgeq_runtime.engines import onnxruntime

_TOLERANCE = 0.03
"""Of the largest value of an output. Sums in another order cost 0.003 where a norm is of numbers
that hardly differ; another sample changes far more."""

Feeds = Mapping[str, NDArray[Any]]


def mixed(graph: Graph, inputs: Collection[str], outputs: Collection[str]) -> str | None:
    """An output of `graph` in which the samples of the batched `inputs` are not apart, if any.

    `outputs` have one row for each sample, the others are the same for all. None too where the
    engine cannot run two made-up samples.
    """
    pair = _made_up(graph, inputs)
    try:
        session = onnxruntime.open_session(onnx.write(graph, None), threads=1)
        together = session.run(dict(pair))
        alone = [
            session.run({**pair, **{name: pair[name][at : at + 1] for name in inputs}})
            for at in range(2)
        ]
        session.close()
    except EdgeqError:
        return None
    for name, whole in together.items():
        first, second = (row[name] for row in alone)
        if name in outputs:
            fits = first.ndim > 0 and _agree(whole, np.concatenate([first, second]))
        else:
            fits = _agree(whole, first) and _agree(whole, second)
        if not fits:
            return name
    return None


def _made_up(graph: Graph, inputs: Collection[str]) -> dict[str, NDArray[Any]]:
    """Two samples; whole numbers are 0 and 1, which all tables and axes have."""
    rng = np.random.default_rng(0)

    def draw(dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        if dtype.startswith("float"):
            return np.asarray(rng.normal(size=shape), dtype)
        return rng.integers(0, 2, shape).astype(dtype)

    return {
        info.name: draw(info.dtype, (*((2,) if info.name in inputs else ()), *_rest(info, inputs)))
        for info in graph.inputs
    }


def _rest(info: Any, inputs: Collection[str]) -> tuple[int, ...]:
    sizes = info.shape[1:] if info.name in inputs else info.shape
    return tuple(size if isinstance(size, int) else 1 for size in sizes)


def _agree(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """The same shape, and the same numbers but for rounding.

    Rounding turns a few whole numbers (places of maxima) over too, but not half of them.
    """
    if one.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        return bool(np.count_nonzero(one != other) * 2 <= one.size)
    finite = np.isfinite(one) & np.isfinite(other)
    one, other = one[finite].astype(np.float64), other[finite].astype(np.float64)
    limit = _TOLERANCE * float(np.abs(one).max(initial=0.0))
    return bool((np.abs(one - other) <= limit).all())

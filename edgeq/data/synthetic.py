"""Made-up samples for a build without data: seeded, the same on every machine, never trusted.

Numbers come from splitmix64 as a counter (Steele, Lea and Flood, 2014), so they depend on the
seed, the input's place and the element's place alone, and on no library's generator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.data.feeds import Feed, Source, Tally
from edgeq.errors import EdgeqError
from edgeq_runtime.golden import splitmix64
from edgeq_runtime.tensors import TensorInfo

MAX_ELEMENTS = 1 << 28
MAX_TOTAL_ELEMENTS = 1 << 26  # of all samples together: seconds to make up, not minutes


Ranges = Mapping[str, tuple[float, float]]
NO_RANGES: Ranges = MappingProxyType({})


def synthetic(
    inputs: Sequence[TensorInfo], count: int, seed: int = 0, ranges: Ranges = NO_RANGES
) -> Source:
    """`count` feeds of made-up values: floats of mean 0 and deviation 1, within +-3.5.

    An input that `ranges` names is uniform in its range, both ends included for whole numbers.

    8-bit integers take their whole range; wider ones, booleans and strings are 0 or 1, which is
    safe as a token, a mask or an index. A leading axis of no fixed size is 1; any other axis of no
    fixed size is `[needs-shape]`. Where all feeds would hold more than MAX_TOTAL_ELEMENTS there are
    fewer, at least one, and a note says so.
    """
    shapes = [_shape(info) for info in inputs]
    used = min(count, max(1, MAX_TOTAL_ELEMENTS // max(1, sum(map(prod, shapes)))))
    notes = (f"{used} of {count} made-up samples: the inputs are large",) if used < count else ()

    def make(_: Tally) -> Iterator[Feed]:
        for index in range(used):
            yield {
                info.name: _ranged(info, shape, (seed, index, place), ranges.get(info.name))
                for place, (info, shape) in enumerate(zip(inputs, shapes, strict=True))
            }

    plural = "" if used == 1 else "s"
    return Source(f"{used} synthetic sample{plural} (seed {seed})", used, notes, make)


def _shape(info: TensorInfo) -> tuple[int, ...]:
    sizes: list[int] = []
    for axis, size in enumerate(info.shape):
        if isinstance(size, int):
            sizes.append(size)
        elif axis == 0:
            sizes.append(1)
        else:
            dims = "x".join(str(s) if isinstance(s, int) else "1" for s in info.shape)
            raise EdgeqError(
                "needs-shape",
                f"input `{info.name}` is {info.describe()}, and made-up data needs a size for"
                f" axis {axis}",
                f"--shape {info.name}={dims}",
            )
    if prod(sizes) > MAX_ELEMENTS:
        raise EdgeqError(
            "needs-shape", f"input `{info.name}` is {info.describe()}: too large to make up"
        )
    return tuple(sizes)


def _ranged(
    info: TensorInfo,
    shape: tuple[int, ...],
    key: tuple[int, int, int],
    ends: tuple[float, float] | None,
) -> NDArray[Any]:
    kind = None if ends is None or info.dtype == "object" else np.dtype(_known(info)).kind
    if ends is None or kind not in ("f", "i", "u"):
        return _values(info, shape, key)
    (low, high), share = ends, _uniform(prod(shape), key, 0).reshape(shape)
    if kind == "f":
        return (low * (1 - share) + high * share).astype(info.dtype)
    return np.minimum(low + np.floor(share * (high - low + 1)), high).astype(info.dtype)


def _values(info: TensorInfo, shape: tuple[int, ...], key: tuple[int, int, int]) -> NDArray[Any]:
    size = prod(shape)
    if info.dtype in ("float16", "float32", "float64"):
        # Four uniforms: variance 4/12, so sqrt(3) brings the sum about its mean to variance 1.
        total = sum(_uniform(size, key, lane) for lane in range(4))
        values: NDArray[Any] = ((np.asarray(total) - 2.0) * np.sqrt(3.0)).reshape(shape)
        return values.astype(info.dtype)
    bits = _bits(size, key, 0)
    if info.dtype in ("uint8", "int8"):
        return (bits >> np.uint64(56)).astype(np.uint8).view(info.dtype).reshape(shape)
    ones = (bits >> np.uint64(63)).reshape(shape)
    if info.dtype == "object":
        return ones.astype(str).astype(object)
    if info.dtype == "bool" or np.dtype(_known(info)).kind in "iu":
        return ones.astype(info.dtype)
    raise EdgeqError("bad-data", f"input `{info.name}` is {info.dtype}, which numpy cannot make up")


def _known(info: TensorInfo) -> str:
    try:
        np.dtype(info.dtype)
    except TypeError:
        return "float32"
    return info.dtype


def _uniform(size: int, key: tuple[int, int, int], lane: int) -> NDArray[np.float64]:
    """Uniform in [0, 1), 53 bits."""
    return (_bits(size, key, lane) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _bits(size: int, key: tuple[int, int, int], lane: int) -> NDArray[np.uint64]:
    """64 random bits an element: splitmix64 of a counter that starts where (key, lane) says."""
    start = 0
    for part in (*key, lane):
        start = int(splitmix64((start + part) % 2**64, 1)[0])
    bits: NDArray[np.uint64] = splitmix64(start, size)
    return bits

"""A TFLite artifact as the float model it came from: floats in and out, the source's axes.

`--io int8` and `--layout nhwc` change what an artifact takes and gives. Comparing and evaluating
speak of the float model's values, so here they are turned into what the file wants, and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgeq.api.models import LITERT, open_exact
from edgeq_runtime.tensors import TensorInfo

if TYPE_CHECKING:
    import numpy as np

    from edgeq_runtime.tflite import Model, Tensor

    Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Border:
    """How one input or output lies in the file: codes of this scale (None: as it is), axes."""

    dtype: str
    scale: float | None = None
    zero_point: int = 0
    channels_last: bool = False

    @property
    def is_plain(self) -> bool:
        return self.scale is None and not self.channels_last

    def codes(self, values: Array) -> Array:
        """`values` as the file takes them: to nearest, ties to even, clipped."""
        import numpy as np

        array = np.moveaxis(values, 1, -1) if self.channels_last else values
        return np.asarray(self._info.codes(array), order="C")

    def values(self, array: Array) -> Array:
        """What the file gives, as the float model would."""
        import numpy as np

        found = self._info.values(array)
        return np.moveaxis(found, -1, 1) if self.channels_last else found

    @property
    def _info(self) -> TensorInfo:
        return TensorInfo("", self.dtype, (), self.scale, self.zero_point)

    def span(self, low: float, high: float) -> tuple[float, float]:
        """A range of values as the file counts them."""
        import numpy as np

        if self.scale is None:
            return low, high
        ends = replace(self, channels_last=False).codes(np.array([low, high]))
        return float(ends[0]), float(ends[1])


PLAIN = Border("float32")


def borders(model: bytes) -> dict[str, Border]:
    """The border of each input and output of a TFLite file by name; an ONNX file has none."""
    from edgeq_runtime import engines, tflite
    from edgeq_runtime.engines.tflite_session import notes

    if engines.for_model(model) != LITERT:
        return {}
    parsed = tflite.parse(model)
    last = set(notes(parsed).get("channels_last", ()))
    return {
        name: _border(parsed.subgraphs[0].tensors[index], last)
        for name, index in ends(parsed).items()
    }


def ends(model: Model) -> dict[str, int]:
    """Name -> tensor of the inputs and outputs, as a session calls them: by the signature
    `serving_default` or the only one, else by the tensors' own names."""
    from edgeq_runtime.engines.tflite_session import names_of

    inputs, outputs = names_of(model)
    return {**inputs, **outputs}


def _border(tensor: Tensor, channels_last: set[str]) -> Border:
    is_last = tensor.name in channels_last
    found = tensor.quantization
    if tensor.dtype not in ("int8", "uint8", "int16") or found is None or len(found.scale) != 1:
        return Border(tensor.dtype, channels_last=is_last)
    return Border(tensor.dtype, float(found.scale[0]), int(found.zero_point[0]), is_last)


def codes(found: Mapping[str, Border], feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The float model's inputs as a file with these borders takes them."""
    return {name: found.get(name, PLAIN).codes(array) for name, array in feeds.items()}


def values(found: Mapping[str, Border], outputs: Mapping[str, Array]) -> dict[str, Array]:
    """What a file with these borders gives, as the float model would."""
    return {name: found.get(name, PLAIN).values(array) for name, array in outputs.items()}


class FloatSession:
    """A session of the runtime seen from the float model: the same names, floats, its axes."""

    def __init__(self, session: Any, borders: Mapping[str, Border]) -> None:
        self.raw = session
        self.engine, self.version, self.mode = session.engine, session.version, session.mode
        self._borders = borders
        self.inputs = tuple(map(self._info, session.inputs))
        self.outputs = tuple(map(self._info, session.outputs))

    def run(self, feeds: Mapping[str, Array], names: Sequence[str] | None = None) -> dict[str, Any]:
        got = self.raw.run(codes(self._borders, feeds), names=names)
        return values(self._borders, got)

    def close(self) -> None:
        self.raw.close()

    def _info(self, info: TensorInfo) -> TensorInfo:
        border = self._borders.get(info.name, PLAIN)
        shape = info.shape
        if border.channels_last:
            shape = (shape[0], shape[-1], *shape[1:-1])
        dtype = info.dtype if border.scale is None else "float32"
        return replace(info, dtype=dtype, shape=shape, scale=None, zero_point=0)


def open_as_float(model: bytes, *, threads: int | None = None) -> Any:
    """`open_exact` of an artifact, in the float model's terms."""
    return as_float(open_exact(model, threads=threads), borders(model))


def as_float(session: Any, found: Mapping[str, Border]) -> Any:
    """`session`, wrapped where some input or output lies otherwise in its file."""
    plain = all(each.is_plain for each in found.values())
    return session if plain else FloatSession(session, found)

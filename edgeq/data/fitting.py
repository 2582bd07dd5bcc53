"""Making one array of the user's into what one input of the model takes, or saying why not.

`ItemFit` turns an item (one sample, or one whole feed) into the model's dtype and layout: images
through `[input.NAME]`, integers and wider floats by a cast that is said, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.errors import EdgeqError, did_you_mean
from edgeq_runtime.preprocess import InputSpec
from edgeq_runtime.tensors import Dimension, TensorInfo, describe

_CHANNELS = (1, 3, 4)
LABELS = "y"  # what evaluations call their labels: an input only where the model says so


@dataclass(frozen=True)
class ItemFit:
    """How arrays of one dtype become the input `info`; `spec` is set where they are images."""

    info: TensorInfo
    spec: InputSpec | None
    note: str | None

    def convert(self, item: NDArray[Any], place: str) -> NDArray[Any]:
        """A sample or feed in the model's dtype, C-contiguous; NaN, Inf and overflow are refused.

        With a spec `item` is one uint8 image [H, W, C] and the result has no batch axis.
        """
        if self.spec is not None:
            try:
                return np.ascontiguousarray(self.spec.apply(item), dtype=np.float32)
            except EdgeqError as error:  # too small for the crop, or not as many channels
                raise EdgeqError("bad-data", f"{place}: {error.message}") from None
        if self.info.dtype == "object":
            return np.asarray(item, dtype=object)
        wanted = np.dtype(self.info.dtype)
        _check_finite(item, f"{place}: array `{self.info.name}`")
        with np.errstate(over="ignore", invalid="ignore"):
            result = np.ascontiguousarray(item, dtype=wanted).reshape(item.shape)
        if wanted.kind in "iu" and not np.array_equal(result, item):
            raise EdgeqError("bad-data", f"{place}: a value of `{self.info.name}` is no {wanted}")
        if wanted.kind == "f" and result.dtype != item.dtype:
            _check_finite(result, f"{place}: array `{self.info.name}` cast to {wanted}")
        return result


def fit_item(
    info: TensorInfo, dtype: np.dtype[Any], item: Sequence[int], spec: InputSpec | None, where: str
) -> ItemFit:
    """How items of this dtype and shape fit an input; `[data-mismatch]` where the dtype cannot.

    `item` is the shape of one sample without batch axis; only its look (an image?) matters here.
    """
    if _is_image(dtype, item) and spec is not None and info.dtype == "float32":
        return ItemFit(
            info, spec, f"input `{info.name}`: preprocessed as `[input.{info.name}]` says"
        )
    note = None
    if spec is not None:
        note = (
            f"input `{info.name}`: the arrays are {dtype}, so `[input.{info.name}]` is not applied"
        )
    if not _castable(dtype, info.dtype):
        raise mismatch(info, str(dtype), None, where)
    if info.dtype != "object" and dtype.newbyteorder("=") != np.dtype(info.dtype):
        cast = f"input `{info.name}`: {dtype.newbyteorder('=')} cast to {info.dtype}"
        note = cast if note is None else f"{note}; {cast}"
    return ItemFit(info, None, note)


def fits(shape: Sequence[int], wanted: Sequence[Dimension]) -> bool:
    """Whether a shape has the wanted rank and every size that is fixed."""
    return len(shape) == len(wanted) and all(
        not isinstance(want, int) or want == got for got, want in zip(shape, wanted, strict=True)
    )


def mismatch(
    info: TensorInfo, dtype: str, shape: Sequence[int] | None, where: str, wanted: str | None = None
) -> EdgeqError:
    """`[data-mismatch]`: which input, what it wants, what it got and where."""
    got = dtype if shape is None else describe(dtype, tuple(shape))
    hints: list[str] = []
    if shape is not None:
        hints.extend(_transposed(info, shape))
    want = wanted or info.describe()
    return EdgeqError(
        "data-mismatch", f"{where}: input `{info.name}` wants {want}, got {got}", *hints
    )


def refuse_shape(
    info: TensorInfo,
    dtype: np.dtype[Any],
    shape: Sequence[int],
    where: str,
    wanted: str | None = None,
) -> EdgeqError:
    """The error for arrays whose shape does not fit: images without a spec are told apart."""
    if _is_image(dtype, shape[-3:]) and len(shape) in (3, 4) and info.dtype == "float32":
        return EdgeqError(
            "needs-preprocess",
            f"{where}: input `{info.name}` wants {info.describe()}, got uint8 images"
            f" {list(shape)} and no `[input.{info.name}]`",
            f"describe them in edgeq.toml: [input.{info.name}] with resize, scale, mean, std",
            "or give arrays that are preprocessed already",
        )
    return mismatch(info, str(dtype), shape, where, wanted)


def match_names(
    names: Iterable[str], inputs: Sequence[TensorInfo], where: str, unused: Sequence[str] = ()
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Which array feeds which input (input -> array), and the arrays that feed none.

    By name; a single array beside labels feeds a single input whatever it is called (`renamings`
    says so). `unused` arrays (labels too) are never inputs and are not listed.
    """
    arrays = [name for name in names if name not in unused]
    wanted = [info.name for info in inputs]
    others = [name for name in arrays if name != LABELS]
    if len(wanted) == len(others) == 1 and wanted[0] not in arrays:
        return {wanted[0]: others[0]}, tuple(name for name in arrays if name == LABELS)
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise EdgeqError(
            "data-mismatch",
            f"{where} has no array for input {', '.join(f'`{name}`' for name in missing)};"
            f" it has {', '.join(f'`{name}`' for name in arrays) or 'none'}"
            f"{', which holds labels' if arrays == [LABELS] else ''}",
            *did_you_mean(missing[0], arrays),
        )
    return {name: name for name in wanted}, tuple(name for name in arrays if name not in wanted)


def renamings(names: Mapping[str, str]) -> list[str]:
    """A note for each input -> array that are not called the same."""
    return [
        f"array `{array}` is used as input `{name}`"
        for name, array in names.items()
        if array != name
    ]


def _is_image(dtype: np.dtype[Any], item: Sequence[int]) -> bool:
    return dtype == np.uint8 and len(item) == 3 and item[-1] in _CHANNELS


def _castable(have: np.dtype[Any], want: str) -> bool:
    if want == "object":
        return have.kind == "U"
    try:
        wanted = np.dtype(want)
    except TypeError:
        return False  # bfloat16 and the like: numpy has no such arrays
    if wanted.kind == "f":
        return have.kind in "biuf"
    if wanted.kind in "iu":
        return have.kind in "biu"
    return have.kind == wanted.kind


def _check_finite(array: NDArray[Any], place: str) -> None:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    kind = "NaN" if np.isnan(array).any() else "Inf"
    raise EdgeqError("bad-data", f"{place} has {kind}")


def _transposed(info: TensorInfo, shape: Sequence[int]) -> tuple[str, ...]:
    """A hint where the channels are merely on the other side."""
    if len(shape) != 4 or len(info.shape) != 4:
        return ()
    n, a, b, c = shape
    if fits((n, c, a, b), (None, *info.shape[1:])):
        return ("channels last: write the array as `array.transpose(0, 3, 1, 2)`",)
    if fits((n, b, c, a), (None, *info.shape[1:])):
        return ("channels first: write the array as `array.transpose(0, 2, 3, 1)`",)
    return ()

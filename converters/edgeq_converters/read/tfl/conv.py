"""Convolutions: channels first, explicit padding, weights [O, I, ...]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeq_converters.read.tfl import windows
from edgeq_converters.read.tfl.reading import Handler, Perm, Reading, Unsupported, channels_first
from edgeq_runtime.tflite import Operator


@dataclass(frozen=True)
class _Window:
    """Where the kernel of a convolution goes. `source` is the tensor it reads, `result` the one
    it makes: those of the operator, or of a padding or a rearrangement around it."""

    source: int
    result: int
    strides: Sequence[int]
    dilations: Sequence[int]
    pads: windows.Pads


_2D = ("h", "w")
_3D = ("d", "h", "w")


def conv_2d(ctx: Reading, op: Operator) -> None:
    """Weights [O, H, W, I]; fewer input channels than the tensor has mean groups."""
    channels = ctx.shape(op.inputs[0])[-1]
    deep = ctx.shape(op.inputs[1])[-1]
    _convolve(ctx, op, _2D, (0, 3, 1, 2), channels // max(deep, 1))


def depthwise_conv_2d(ctx: Reading, op: Operator) -> None:
    """Weights [1, H, W, C * multiplier], the results of one channel side by side."""
    _convolve(ctx, op, _2D, (3, 0, 1, 2), ctx.shape(op.inputs[0])[-1])


def conv_3d(ctx: Reading, op: Operator) -> None:
    """Weights [D, H, W, I, O]."""
    channels, deep = ctx.shape(op.inputs[0])[-1], ctx.shape(op.inputs[1])[3]
    _convolve(ctx, op, _3D, (4, 3, 0, 1, 2), channels // max(deep, 1))


def _convolve(ctx: Reading, op: Operator, axes: Sequence[str], perm: Perm, group: int) -> None:
    source, weight = op.inputs[:2]
    if ctx.rank(source) != len(perm) or ctx.rank(weight) != len(perm):
        raise Unsupported(f"reads a tensor of {ctx.rank(source)} axes")
    kernel = [ctx.shape(weight)[axis] for axis in perm[2:]]
    window = _window(ctx, op, axes, kernel)
    first = channels_first(len(perm))
    made = ctx.emit(
        "Conv",
        ctx.value(window.source, first),
        ctx.weight(weight, perm),
        ctx.bias(ctx.given(op, 2), source, ctx.stored_codes(weight, perm)),
        kernel_shape=kernel,
        strides=list(window.strides),
        dilations=list(window.dilations),
        pads=windows.in_order(window.pads),
        group=group,
    )
    ctx.weighted(made, source, weight, "int8-weights")
    ctx.put(window.result, ctx.activated(made, op), first)


def _window(ctx: Reading, op: Operator, axes: Sequence[str], kernel: Sequence[int]) -> _Window:
    source, options = op.inputs[0], op.options
    strides = [int(options[f"stride_{axis}"]) for axis in axes]
    dilations = [int(options[f"dilation_{axis}_factor"]) for axis in axes]
    sizes = ctx.shape(source)[1:-1]
    pads = windows.pads(options["padding"], sizes, kernel, strides, dilations)
    apart = ctx.dilated.get(op.outputs[0])
    if apart is not None:
        return _Window(apart.source, apart.result, strides, apart.block, apart.pads)
    around = ctx.padded.get(source)
    if around is not None and options["padding"] == "VALID":
        return _Window(around[0], op.outputs[0], strides, dilations, around[1])
    return _Window(source, op.outputs[0], strides, dilations, pads)


def transpose_conv(ctx: Reading, op: Operator) -> None:
    """Inputs: the shape of the result, weights [O, H, W, I], the tensor, a bias."""
    _spread(ctx, op, _2D, (3, 0, 1, 2))


def conv_3d_transpose(ctx: Reading, op: Operator) -> None:
    """As `transpose_conv`, weights [D, H, W, O, I]."""
    _spread(ctx, op, _3D, (4, 3, 0, 1, 2))


def _spread(ctx: Reading, op: Operator, axes: Sequence[str], perm: Perm) -> None:
    weight, source = op.inputs[1:3]
    kernel = [ctx.shape(weight)[axis] for axis in perm[2:]]
    strides = [int(op.options[f"stride_{axis}"]) for axis in axes]
    if any(op.options.get(f"dilation_{axis}_factor", 1) != 1 for axis in axes):
        raise Unsupported("has dilations")
    if ctx.shape(weight)[perm[0]] != ctx.shape(source)[-1]:
        raise Unsupported("has groups")
    wanted, sizes = ctx.shape(op.outputs[0])[1:-1], ctx.shape(source)[1:-1]
    begins, ends, beyond = [], [], []
    for result, size, step, width in zip(wanted, sizes, strides, kernel, strict=True):
        total = (size - 1) * step + width - result
        begins.append(max(total, 0) // 2)
        ends.append(max(total, 0) - max(total, 0) // 2)
        beyond.append(max(-total, 0))
    first = channels_first(len(perm))
    made = ctx.emit(
        "ConvTranspose",
        ctx.value(source, first),
        ctx.weight(weight, perm),
        ctx.bias(ctx.given(op, 3), source, ctx.stored_codes(weight, perm)),
        kernel_shape=kernel,
        strides=strides,
        pads=begins + ends,
        output_padding=beyond if any(beyond) else None,
    )
    ctx.weighted(made, source, weight, "int8-weights")
    ctx.put(op.outputs[0], ctx.activated(made, op), first)


HANDLERS: Mapping[str, Handler] = {
    "CONV_2D": conv_2d,
    "DEPTHWISE_CONV_2D": depthwise_conv_2d,
    "CONV_3D": conv_3d,
    "TRANSPOSE_CONV": transpose_conv,
    "CONV_3D_TRANSPOSE": conv_3d_transpose,
}

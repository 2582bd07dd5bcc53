"""The edgeq.toml that `init` writes: every setting there is, with an example that fits one model.

A line that begins with `#` and no space is a setting that is off; `# ` begins a remark.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgeq_runtime import TensorInfo

SIDE, LENGTH = 224, 128
"""Stand-ins for free sizes: of an image's side, of any other axis."""


@dataclass(frozen=True)
class Facts:
    """What the file is written for. `target_is` says where the target comes from; a target of
    None leaves that setting off. `layer` is the name of a node that could stay in float."""

    name: str
    model: str
    target: str | None
    target_is: str
    inputs: Sequence[TensorInfo]
    outputs: Sequence[TensorInfo]
    size_bytes: int
    layer: str


def settings_file(facts: Facts) -> str:
    """The text of edgeq.toml, ending in a newline."""
    blocks = (
        _head(facts),
        _data(facts),
        _quality(facts),
        _precision(facts),
        _output(facts),
        _shapes(facts),
        *(_image(info) for info in facts.inputs),
    )
    return "\n\n".join("\n".join(lines) for block in blocks if (lines := list(block))) + "\n"


def guessed_layout(info: TensorInfo) -> tuple[str, tuple[int, int]] | None:
    """("nchw" or "nhwc", (height, width)) for what looks like a batch of images, else None.

    A guess by the shape alone: four axes, of which the second or the last is 1 or 3.
    """
    if len(info.shape) != 4 or info.dtype not in ("float32", "float16"):
        return None
    for layout, channels, at in (("nchw", info.shape[1], 2), ("nhwc", info.shape[3], 1)):
        if channels in (1, 3):
            height, width = (s if isinstance(s, int) else SIDE for s in info.shape[at : at + 2])
            return layout, (height, width)
    return None


def guessed_shape(info: TensorInfo) -> str | None:
    """`1x128` for an input with free axes behind the first; None where all of them are fixed."""
    if all(isinstance(size, int) for size in info.shape[1:]):
        return None
    free = SIDE if guessed_layout(info) else LENGTH
    sizes = [size if isinstance(size, int) else free for size in info.shape]
    if not isinstance(info.shape[0], int):
        sizes[0] = 1
    return "x".join(map(str, sizes))


def text(value: str) -> str:
    """A TOML basic string; it is JSON's but for DEL, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")


def _head(facts: Facts) -> Iterator[str]:
    yield f"# Settings of `edgeq build` for {text(facts.name)}; flags and EDGEQ_* variables outrank"
    yield "# them. A line like `#data = ...` is a setting that is off: take the `#` away to use it."
    yield "# Paths are relative to this file."
    yield ""
    yield f"model = {text(facts.model)}"
    off = "#" if facts.target is None else ""
    yield f"{off}target = {text(facts.target or 'rpi5')}  # {facts.target_is}"


def _data(facts: Facts) -> Iterator[str]:
    arrays = ", ".join(f"{text(info.name)} {info.describe()}" for info in facts.inputs)
    yield "# Calibration for int8: 100 to 500 samples such as the device will see. An .npz with"
    yield f"# {arrays or 'nothing'};"
    yield "# or a folder of .npy, or a function that yields samples: `file.py:function`."
    yield '#data = "calib.npz"'
    yield "# At most so many samples of it; all of them where this is off."
    yield "#samples = 256"
    yield "# Random numbers instead of data: shows what a build does, and no figure of it counts."
    yield "#synthetic_data = true"


def _quality(facts: Facts) -> Iterator[str]:
    classes = _has_classes(facts)
    metric = "top1" if classes else "cosine"
    kept = "top1>=-1pt" if classes else "cosine>=0.99"
    yield "# Quality: an .npz with the same arrays and what is right as `y`, measured by `metric`;"
    yield "# or your own function, `eval.py:score`, called with the artifact: it needs no metric."
    yield '#eval = "eval.npz"'
    yield f"#metric = {text(metric)}"
    yield "# What must hold, else `build` exits with 1; signed figures are relative to float."
    yield f"#gate = [{text(kept)}, {text(f'size<{_half(facts.size_bytes)}')}]"
    yield "# Write nothing when the gate fails."
    yield "#strict = true"


def _precision(facts: Facts) -> Iterator[str]:
    yield "# auto: int8 where there is data and the gate passes, else fp32. Or fp32, fp16, int8."
    yield '#precision = "auto"'
    yield "# Where ranges come from; auto tries several and keeps the one with the least error."
    yield '#algo = "minmax"'
    yield "# How weights are stored and what layers read: chosen by measuring where this is off."
    yield "# With dynamic layers, int4 and int4-block32 store their weights in half a byte."
    yield '#weights = "int8"'
    yield '#acts = "dynamic"'
    yield "# Nodes to leave in float, by name; `edgeq inspect FILE --plan` shows them all."
    yield f"#keep_float = [{text(facts.layer)}]"


def _output(facts: Facts) -> Iterator[str]:
    yield "# Where the bundle goes, and as what: zip, or dir for a folder with the model as a file."
    yield '#out = "model.edgeq"'
    yield '#as = "zip"'
    yield "# The format of the model in it: onnx; ort, which is tied to one platform and engine; or"
    yield "# tflite. Without it, what the engine reads."
    yield '#format = "onnx"'
    yield "# The engine that runs it: ort or litert; auto builds for both, measures, and keeps one."
    yield '#engine = "litert"'
    yield "# Of a tflite model: int8 inputs and outputs, and images with their channels last."
    yield '#io = "int8"'
    yield '#layout = "nhwc"'
    yield "# Replace a folder that is there already."
    yield "#force = true"
    if _has_classes(facts):
        yield "# Names of the classes, one a line, in the order of the outputs."
        yield '#labels = "labels.txt"'


def _shapes(facts: Facts) -> Iterator[str]:
    free = {info.name: shape for info in facts.inputs if (shape := guessed_shape(info))}
    if not free:
        return
    yield "# Inputs with sizes that the model leaves open: fix them, and the engine plans ahead."
    yield "# The sizes below are a guess."
    yield "#[shape]"
    yield from (f"#{text(name)} = {text(shape)}" for name, shape in free.items())


def _image(info: TensorInfo) -> Iterator[str]:
    guess = guessed_layout(info)
    if guess is None:
        return
    layout, (height, width) = guess
    yield f"# If {text(info.name)} is an image: from its pixels to {info.describe()}."
    three = 3 in (info.shape[1], info.shape[3])
    figures = "the figures are ImageNet's" if three else "the figures are placeholders"
    yield f"# The layout is a guess from the shape, {figures}:"
    yield "# put in what the model was trained with."
    yield f"#[input.{text(info.name)}]"
    yield f"#resize = [{height}, {width}]"
    yield f"#crop = [{height}, {width}]"
    yield "#scale = 0.00392156862745098"
    yield f"#mean = {[0.485, 0.456, 0.406] if three else [0.0]}"
    yield f"#std = {[0.229, 0.224, 0.225] if three else [1.0]}"
    yield '#channels = "rgb"'
    yield f"#layout = {text(layout)}"


def _has_classes(facts: Facts) -> bool:
    """Whether the first output looks like scores [samples, classes]; a guess by its shape."""
    shape = facts.outputs[0].shape if facts.outputs else ()
    return len(shape) == 2 and isinstance(shape[1], int) and shape[1] > 1


def _half(size_bytes: int) -> str:
    """Half of the float model, as a gate writes sizes."""
    half = max(1, size_bytes // 2)
    scale, unit = next((s, u) for s, u in ((10**6, "MB"), (10**3, "kB"), (1, "B")) if half >= s)
    return f"{half / scale:.3g}{unit}"

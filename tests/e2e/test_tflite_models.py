"""Real TFLite models: float in, int8 TFLite and int8 ONNX out, against the public int8 files."""

import importlib.util
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import edgeq
from edgeq.api.border import open_as_float
from edgeq.api.models import open_exact
from edgeq.ir import Graph
from edgeq.quant.plan import QuantPlan
from edgeq_converters.read import tflite as reading
from edgeq_converters.write import onnx as onnx_writer
from edgeq_converters.write import tflite as writing
from edgeq_runtime import reader, tflite
from edgeq_runtime.engines import litert

pytestmark = [pytest.mark.shared, pytest.mark.slow]

# What issue 5 asks of them.
POINTS = 0.005  # of accuracy that int8 may lose
PROBES = 200  # inputs whose signal to noise counts
LARGER = 1.05  # than the public file
RELATIVE = 1e-4  # of the largest output
WITHIN_ONE = 0.99  # of the codes, in another engine; all are within 2

CALIBRATION = 80
SCORED = 1000  # of the labelled rows, drawn once: they lie by class


@dataclass(frozen=True)
class Net:
    """A float file, the public int8 one of it (None: there is none), and stored samples of it."""

    home: Path
    float_name: str
    int8_name: str | None
    over: int = 1  # what stored samples are divided by

    @property
    def float_file(self) -> Path:
        return self.home / self.float_name

    @property
    def int8_file(self) -> Path | None:
        return self.home / self.int8_name if self.int8_name else None

    def rows(self, key: str) -> np.ndarray:
        with np.load(self.home / "data.npz") as data:
            return data[key].astype(np.float32) / np.float32(self.over)

    @cached_property
    def scored(self) -> tuple[np.ndarray, np.ndarray]:
        """Samples with their labels."""
        with np.load(self.home / "data.npz") as data:
            labels = data["y"]
        order = np.random.default_rng(0).permutation(len(labels))[:SCORED]
        return self.rows("x")[order], labels[order]


FILES: dict[str, tuple[Any, ...]] = {
    "kws": ("kws_dscnn", "kws_ref_model_float32.tflite", "kws_ref_model.tflite"),
    "resnet8": ("ic_resnet8", "pretrainedResnet.tflite", "pretrainedResnet_quant.tflite"),
    "resnet8_large": (
        "ic_resnet8",
        "pretrainedResnet_large_float.tflite",
        "pretrainedResnet_large_int8.tflite",
    ),
    "vww": ("vww_mobilenet", "vww_96_float.tflite", "vww_96_int8.tflite", 255),
    "gesture": ("tab_gesture", "keypoint_classifier.tflite", None),
    "lstm": ("mnist", "trained_lstm.tflite", "trained_lstm_int8.tflite", 255),
}
CONVOLUTIONAL = ("kws", "resnet8", "resnet8_large", "vww")
FORMS = ("tflite", "onnx")


def each(names: Any) -> Any:
    """One test for each net, all of a net on one worker: they share its builds."""
    return pytest.mark.parametrize(
        "name", [pytest.param(name, marks=pytest.mark.xdist_group(f"e2e-{name}")) for name in names]
    )


@pytest.fixture(scope="module")
def net(shared: Path) -> Callable[[str], Net]:
    made: dict[str, Net] = {}

    def load(name: str) -> Net:
        folder, *rest = FILES[name]
        return made.setdefault(name, Net(shared / "data" / folder, *rest))

    return load


@pytest.fixture(scope="module")
def built(net: Callable[[str], Net], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`built(name, form, precision)`: the artifact that default settings give."""
    made: dict[tuple[str, str, str], bytes] = {}

    def build(name: str, form: str, precision: str = "int8") -> bytes:
        key = (name, form, precision)
        if key not in made:
            out = tmp_path_factory.mktemp("built") / "m.edgeq"
            settings = edgeq.BuildSettings(format=form)
            data = net(name).rows("calib_x")[:CALIBRATION] if precision == "int8" else None
            file = net(name).float_file
            edgeq.build(
                file, target="x86-vnni", precision=precision, data=data, out=out, settings=settings
            )
            made[key] = reader.read(out).artifact
        return made[key]

    return build


def scores(model: bytes, samples: np.ndarray, output: str = "") -> np.ndarray:
    """[n, classes] in floats, one sample at a time, whatever the border of the file is."""
    session = open_as_float(model)
    name, wanted = session.inputs[0].name, output or session.outputs[0].name
    rows = [session.run({name: sample[None]}, names=[wanted])[wanted] for sample in samples]
    session.close()
    return np.concatenate(rows).reshape(len(samples), -1)


def accuracy(found: np.ndarray, labels: np.ndarray) -> float:
    return float((found.argmax(axis=1) == labels).mean())


def sqnr(reference: np.ndarray, found: np.ndarray) -> float:
    noise = float(np.square(reference - found, dtype=np.float64).sum())
    return 10 * np.log10(float(np.square(reference, dtype=np.float64).sum()) / max(noise, 1e-30))


def with_float_weights(data: bytes) -> bytes:
    """The file with int8 weights of float operators as the floats they stand for.

    LiteRT rounds what it multiplies by int8 weights to int8 as well, which is no float arithmetic.
    """
    model = schema.ModelT.InitFromPackedBuf(data)
    for tensor in model.subgraphs[0].tensors:
        if tensor.type == schema.TensorType.INT8:
            codes = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.int8)
            floats = codes.astype(np.float32) * np.float32(tensor.quantization.scale[0])
            model.buffers[tensor.buffer].data = np.frombuffer(floats.tobytes(), np.uint8)
            tensor.type, tensor.quantization = schema.TensorType.FLOAT32, None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@each(FILES)
def test_float_onnx_is_what_the_reference_kernels_compute(
    net: Callable[[str], Net], built: Any, name: str
) -> None:
    samples = net(name).scored[0][:20]
    source = with_float_weights(net(name).float_file.read_bytes())
    session = litert.open_session(source, threads=1, resolver="reference")
    feed, output = session.inputs[0].name, session.outputs[0].name
    wanted = np.concatenate([session.run({feed: row[None]})[output] for row in samples])
    session.close()
    found = scores(built(name, "onnx", "fp32"), samples)
    assert np.abs(found - wanted).max() <= RELATIVE * np.abs(wanted).max()


@pytest.mark.parametrize("form", FORMS)
@each(FILES)
def test_int8_is_as_good_as_the_public_file(
    net: Callable[[str], Net], built: Any, name: str, form: str
) -> None:
    samples, labels = net(name).scored
    # kws in float has int8 weights of its own: what it computes is that of its ONNX form
    wanted, made = (scores(built(name, *key), samples) for key in (("onnx", "fp32"), (form,)))
    least = accuracy(wanted, labels)
    public = net(name).int8_file
    if public is not None:
        theirs = scores(public.read_bytes(), samples)
        least = min(least, accuracy(theirs, labels))
        ratios = [sqnr(wanted[:PROBES], found[:PROBES]) for found in (made, theirs)]
        assert ratios[0] >= ratios[1]
    assert accuracy(made, labels) >= least - POINTS


@pytest.mark.parametrize("form", FORMS)
@each([name for name, files in FILES.items() if files[2] is not None])
def test_int8_is_as_small_as_the_public_file(
    net: Callable[[str], Net], built: Any, name: str, form: str
) -> None:
    public = net(name).int8_file
    assert public is not None
    assert len(built(name, form)) <= LARGER * public.stat().st_size


@each(CONVOLUTIONAL)
def test_a_cnn_stays_one_piece_of_integers(built: Any, name: str) -> None:
    """No transposes (these nets read NHWC), floats at the border alone, and XNNPACK takes all of it
    in one piece but an int8 softmax, which it has no kernel for: so do the public files."""
    made = built(name, "tflite")
    (graph,) = tflite.parse(made).subgraphs
    codes = [operator.code for operator in graph.operators]
    assert "TRANSPOSE" not in codes
    assert (codes[0], codes[-2:]) == ("QUANTIZE", ["SOFTMAX", "DEQUANTIZE"])
    assert not {"QUANTIZE", "DEQUANTIZE"} & {*codes[1:-1]}
    session = litert.open_session(made, threads=1)
    assert (session.left, session.delegated) == (("SOFTMAX",), (len(codes) - 2, 1))
    session.close()


@dataclass(frozen=True)
class Twins:
    """One plan as a file of each format, and how far their codes of a tensor are apart."""

    graph: Graph
    plan: QuantPlan
    tensors: tuple[str, ...]

    def steps(self, samples: np.ndarray) -> dict[str, np.ndarray]:
        """[n, values] in codes for each tensor; inputs are on the grid of their own codes."""
        lite = open_exact(writing.write(self.graph, self.plan, extra_outputs=self.tensors))
        twin = open_exact(onnx_writer.write(self.graph, self.plan, extra_outputs=self.tensors))
        (info,) = self.graph.inputs
        samples = self._on_grid(info.name, samples)
        found: dict[str, list[np.ndarray]] = {tensor: [] for tensor in self.tensors}
        for sample in samples:
            one, other = (each.run({info.name: sample[None]}) for each in (lite, twin))
            for tensor, rows in found.items():
                rows.append(np.abs(one[tensor] - other[tensor]).ravel() / self._scale(tensor))
        lite.close()
        twin.close()
        return {tensor: np.rint(np.stack(rows)) for tensor, rows in found.items()}

    def _scale(self, tensor: str) -> float:
        encoding = self.plan.encoding(tensor)
        assert encoding is not None, f"`{tensor}` has no codes"
        return float(encoding.scale[0])

    def _on_grid(self, tensor: str, samples: np.ndarray) -> np.ndarray:
        encoding = self.plan.encoding(tensor)
        if encoding is None:
            return samples
        scale, zero_point = np.float32(encoding.scale[0]), encoding.zero_point[0]
        codes = np.clip(np.rint(samples / scale) + zero_point, -128, 127)
        return ((codes - zero_point) * scale).astype(np.float32)


def last_stages(graph: Graph) -> tuple[str, ...]:
    """The graph's output, behind it the logits where a Softmax made it."""
    output = graph.outputs[0].name
    (node,) = (node for node in graph.nodes() if output in [v.name for v in node.outputs])
    return (output, str(node.inputs[0].name)) if node.op_type == "Softmax" else (output,)


@each([name for name in FILES if name not in ("gesture", "lstm")])
def test_both_engines_give_the_same_codes(
    net: Callable[[str], Net], built: Any, tmp_path: Path, name: str
) -> None:
    """A code of the logits can be many of a probability (1/256): where the two differ by more than
    the issue allows there, they are judged at the logits, and so is a Softmax of equal logits."""
    (tmp_path / "ours.tflite").write_bytes(built(name, "tflite"))
    result = reading.read(tmp_path / "ours.tflite")
    assert result.plan is not None
    output, *logits = last_stages(result.graph)
    twins = Twins(result.graph, result.plan, (output, *logits))
    steps = twins.steps(net(name).scored[0][:PROBES])
    told = {tensor: dict(Counter(rows.ravel().tolist())) for tensor, rows in steps.items()}
    print(json.dumps({name: told}))
    for tensor in logits or [output]:
        assert steps[tensor].max() <= 2, told
        assert float((steps[tensor] <= 1).mean()) >= WITHIN_ONE, told
    for tensor in logits:
        equal = ~steps[tensor].any(axis=1)
        assert steps[output][equal].max() <= 1, told


@each(CONVOLUTIONAL)
def test_the_public_integers_survive(net: Callable[[str], Net], tmp_path: Path, name: str) -> None:
    """int8 TFLite in, int8 TFLite out: bit for bit. As ONNX within one code, but for the residual
    nets: of what their last Add or average makes, up to one value in a hundred is another code than
    LiteRT's (most likely ties, rounded otherwise), which the layer behind and a softmax spread."""
    samples = net(name).scored[0][:50]
    public = net(name).int8_file
    assert public is not None
    wanted = scores(public.read_bytes(), samples)
    for form in FORMS:
        result = edgeq.build(
            public,
            target="x86-vnni",
            out=tmp_path / f"{form}.edgeq",
            settings=edgeq.BuildSettings(format=form),
        )
        found = scores(reader.read(result.bundle).artifact, samples)
        steps = np.abs(found - wanted) * 256  # softmax codes are 1/256 apart
        residual = form == "onnx" and name.startswith("resnet8")
        least = 0.95 if residual else 1.0
        assert float((steps <= 1).mean()) >= least, form
        assert float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean()) >= least, form
        assert form == "onnx" or float(steps.max()) == 0


def _loader(shared: Path) -> ModuleType:
    """The dev set's own metrics, by path: it is no package."""
    spec = importlib.util.spec_from_file_location("load", shared / "data" / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_yolox_keeps_its_boxes(shared: Path, tmp_path: Path) -> None:
    """The public int8 TFLite file of it has an AP of 0.026."""
    load: Any = _loader(shared)
    folder = shared / "data" / "det_yolox_nano"
    with np.load(folder / "data.npz") as data:
        calibration, images = data["calib_x"], data["x"]
        ratios, truth = data["ratio_left_top"], data["gt"]
    prepare = load.PRE["det_yolox_nano"]
    result = edgeq.build(
        folder / "yolox_nano.onnx",
        target="x86-vnni",
        precision="int8",
        data=prepare(calibration),
        out=tmp_path / "yolox.edgeq",
        settings=edgeq.BuildSettings(format="tflite"),
    )
    session = open_as_float(reader.read(result.bundle).artifact)
    name, output = session.inputs[0].name, session.outputs[0].name
    boxes = []
    for image, ratio in zip(images, ratios, strict=True):
        raw = session.run({name: prepare(image[None])})[output][0]
        boxes.append(load.yolox_decode(raw, ratio))
    session.close()
    assert load.coco_ap(boxes, truth, len(images))[0] >= 0.30

"""Quantize one model with one tool and default settings, in a process of its own.

    python bench/quantize_once.py TOOL MODEL SAMPLES.npz OUT.onnx [TARGET]

SAMPLES.npz holds arrays named `INDEX/INPUT`. The last line printed is JSON: seconds, notes. Run by
quality.py, speed.py and build_cost.py, for NNCF with the Python of the opponents' own venv.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Feeds = dict[str, Any]


def read_samples(path: Path) -> list[Feeds]:
    """The feeds of an .npz of `INDEX/INPUT` arrays, in order of INDEX."""
    feeds: dict[int, Feeds] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            index, _, name = key.partition("/")
            feeds.setdefault(int(index), {})[name] = arrays[key]
    return [feeds[index] for index in sorted(feeds)]


def edgeq(model: Path, samples: list[Feeds], out: Path, target: str, **settings: Any) -> list[str]:
    """`edgeq.build` with default settings; beside OUT.onnx goes its whole result as OUT.json."""
    import edgeq as package

    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "m.edgeq"
        built = package.build(
            model,
            target=target,
            precision="int8",
            data=lambda: iter(samples),
            out=bundle,
            settings=package.BuildSettings(packaging="dir", **settings),
        )
        (artifact,) = built.artifacts
        shutil.copy(bundle / artifact.file, out)
    out.with_suffix(".json").write_text(json.dumps(built.to_json(), indent=1))
    return [f"precision {built.precision}", *built.warnings]


def edgeq_static(model: Path, samples: list[Feeds], out: Path, target: str) -> list[str]:
    """`--acts static`."""
    return edgeq(model, samples, out, target, acts="static")


def edgeq_mixed(model: Path, samples: list[Feeds], out: Path, target: str) -> list[str]:
    """`--acts mixed`."""
    return edgeq(model, samples, out, target, acts="mixed")


def raised(model: Path, folder: Path, notes: list[str]) -> Path:
    """The model at opset 13 at least, which ONNX Runtime's tool needs for scales per channel."""
    import onnx
    from onnx import version_converter

    loaded = onnx.load(model)
    version = next(row.version for row in loaded.opset_import if row.domain in ("", "ai.onnx"))
    if version >= 13:
        return model
    notes.append(f"opset {version} raised to 17 for it by hand")
    path = folder / "raised.onnx"
    onnx.save(version_converter.convert_version(loaded, 17), path)
    return path


def ort_reader(samples: Sequence[Feeds]) -> Any:
    """The calibration reader that ONNX Runtime's tool asks for."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
        def __init__(self) -> None:
            self.rest: Iterator[Feeds] = iter(samples)

        def get_next(self) -> Feeds | None:
            return next(self.rest, None)

    return Reader()


def ort_defaults(model: Path, samples: list[Feeds], out: Path, _: str) -> list[str]:
    """`quantize_static` with nothing but what it requires."""
    from onnxruntime.quantization import quantize_static

    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        quantize_static(raised(model, Path(folder), notes), out, ort_reader(samples))
    return notes


def _ort_static(model: Path, samples: list[Feeds], out: Path, method: str) -> list[str]:
    """What ONNX Runtime's documentation advises for x86: preprocess, U8S8, per channel."""
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        source = raised(model, Path(folder), notes)
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            out,
            ort_reader(samples),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=getattr(CalibrationMethod, method),
        )
    return notes


def ort_min_max(model: Path, samples: list[Feeds], out: Path, _: str) -> list[str]:
    """U8S8 per channel, min/max."""
    return _ort_static(model, samples, out, "MinMax")


def ort_percentile(model: Path, samples: list[Feeds], out: Path, _: str) -> list[str]:
    """U8S8 per channel, Percentile (99.999)."""
    return _ort_static(model, samples, out, "Percentile")


def ort_dynamic(model: Path, samples: list[Feeds], out: Path, _: str) -> list[str]:
    """`quantize_dynamic`, per channel: what its documentation advises for transformers."""
    from onnxruntime.quantization import quantize_dynamic

    del samples
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        quantize_dynamic(raised(model, Path(folder), notes), out, per_channel=True)
    return notes


def nncf(model: Path, samples: list[Feeds], out: Path, _: str) -> list[str]:
    """`nncf.quantize` with its defaults; the transformer preset where there is a LayerNorm."""
    from importlib import import_module

    import onnx

    package = import_module("nncf")  # only the opponents' venv has it

    notes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        loaded = onnx.load(raised(model, Path(folder), notes))
    transformer = any(node.op_type == "LayerNormalization" for node in loaded.graph.node)
    made = package.quantize(
        loaded,
        package.Dataset(samples),
        subset_size=len(samples),
        model_type=package.ModelType.TRANSFORMER if transformer else None,
    )
    onnx.save(made, out)
    return [*notes, *(["model_type=TRANSFORMER"] if transformer else [])]


TOOLS = {
    "edgeq": edgeq,
    "edgeq-static": edgeq_static,
    "edgeq-mixed": edgeq_mixed,
    "ort": ort_min_max,
    "ort-percentile": ort_percentile,
    "ort-defaults": ort_defaults,
    "ort-dynamic": ort_dynamic,
    "nncf": nncf,
}


def main() -> None:
    tool, model, samples, out, *rest = sys.argv[1:]
    feeds = read_samples(Path(samples))
    started = time.monotonic()
    notes = TOOLS[tool](Path(model), feeds, Path(out), rest[0] if rest else "x86-vnni")
    print()
    told = {"seconds": round(time.monotonic() - started, 1), "notes": notes}
    print(json.dumps(told))


if __name__ == "__main__":
    main()

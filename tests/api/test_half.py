"""`--fp16`: half the file, no data, and what the engine computes with it is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq import targets
from edgeq.api.half import ENCODING
from edgeq_runtime import reader


def test_fp16_needs_no_data_and_is_verified(net: Path) -> None:
    built = edgeq.build(net, target="rpi5", precision="fp16")
    assert built.ok
    assert built.bundle == "net-rpi5-fp16.edgeq"
    assert built.size_bytes < 0.6 * built.float_size_bytes
    assert built.ops["fp16-weights"] == {"Conv": 1, "Gemm": 1}
    assert built.left_in_float == ()
    assert built.calibration is None
    assert built.coverage is None
    assert built.warnings == ()
    # 11 significant bits: 73 dB a layer, two layers
    assert built.fidelity.outputs[0].sqnr_db is not None
    assert built.fidelity.outputs[0].sqnr_db > 65
    assert any(
        note.startswith("fp16 weights on rpi5: ") and "float32" in note for note in built.notes
    )
    manifest = reader.read(built.bundle).manifest
    assert manifest.exact_kernels == "safe"
    assert manifest.precision == "fp16"
    assert manifest.plan == "plan.json"
    assert edgeq.verify(built.bundle).passed


def test_the_same_bytes_every_time(net: Path) -> None:
    one = edgeq.build(net, target="rpi4", precision="fp16", out="one.edgeq")
    two = edgeq.build(net, target="rpi4", precision="fp16", out="two.edgeq")
    assert Path(one.bundle or "").read_bytes() == Path(two.bundle or "").read_bytes()


def test_quality_is_measured_beside_float(net: Path, images: np.ndarray) -> None:
    with edgeq.load(edgeq.build(net, target="x86-vnni", precision="fp32").bundle) as runner:
        labels = runner.run(images)["scores"].argmax(1)
    np.savez("eval.npz", image=images, y=labels)
    settings = edgeq.BuildSettings(metric="top1", gate=("top1>=-5pt",))
    built = edgeq.build(
        net, target="x86-vnni", precision="fp16", evaluate="eval.npz", settings=settings
    )
    assert built.metrics[0]["baseline"] == 1.0
    assert built.gate is not None
    assert built.gate["passed"]


def test_the_plan_is_shown_without_writing(net: Path) -> None:
    planned = edgeq.api.plan(net, target="rpi5", precision="fp16")
    assert planned.precision == "fp16"
    assert planned.ops["fp16-weights"] == {"Conv": 1, "Gemm": 1}
    assert not list(Path().glob("*.edgeq"))


@pytest.mark.parametrize("name", targets.names())
def test_every_target_says_what_it_computes(name: str) -> None:
    rows = targets.load(name).engine("onnxruntime").policy
    told = [row.note for row in rows if row.encoding == ENCODING]
    assert len(told) == 1
    assert told[0] is not None
    assert "float32" in told[0]

"""An outside judge of int8 files: Arm's compiler for Ethos-U, which runs nothing but integers.

What it rejects is left to a CPU. It reads the files without edgeq, TensorFlow or LiteRT.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = [pytest.mark.device, pytest.mark.vela, pytest.mark.shared, pytest.mark.checkout]

Judge = Callable[[Path], Any]


@pytest.mark.parametrize("name", ["kws", "resnet8", "vww"])
def test_the_judge_accepts_the_public_files(
    net: Callable[[str], Any], vela: Judge, name: str
) -> None:
    assert vela(net(name).int8_file).rejected == ()


def test_the_judge_rejects_a_file_in_float(net: Callable[[str], Any], vela: Judge) -> None:
    judged = vela(net("kws").float_file)
    assert len(judged.rejected) == judged.operators == 13
    assert all("unsupported DataType Float32" in reason for _, reason in judged.rejected)


def test_the_judge_rejects_the_public_file_of_yolox(shared: Path, vela: Judge) -> None:
    """608 of its 625 operators; Vela, which splits what it accepts, tells 25 of 633 accepted."""
    judged = vela(shared / "data" / "det_yolox_nano" / "yolox_nano_int8_quantize.tflite")
    assert (judged.operators, len(judged.rejected)) == (625, 608)


@pytest.mark.parametrize("name", ["kws", "resnet8", "vww"])
def test_it_accepts_all_of_ours(
    net: Callable[[str], Any], build_tflite: Callable[..., Path], vela: Judge, name: str
) -> None:
    given = net(name)
    bundle = build_tflite(
        given.float_file, given.calibration[:32, None], acts="static", algo="minmax", io="int8"
    )
    judged = vela(bundle / "model.tflite")
    assert judged.rejected == ()
    assert judged.operators > 10


def test_it_accepts_most_of_our_yolox(
    shared: Path, build_tflite: Callable[..., Path], vela: Judge
) -> None:
    folder = shared / "data" / "det_yolox_nano"
    with np.load(folder / "data.npz") as data:
        images = data["calib_x"][..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    bundle = build_tflite(folder / "yolox_nano.onnx", images[:8, None], acts="static", io="int8")
    judged = vela(bundle / "model.tflite")
    assert judged.accepted >= 0.85, judged.rejected

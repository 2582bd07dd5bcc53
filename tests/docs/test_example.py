"""examples/digits: what is committed is what its README says, and its script makes it."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from edgeq.config import load
from edgeq_runtime.engines.onnxruntime import open_session

pytestmark = pytest.mark.checkout
MAX_BYTES = 1_000_000
MIN_EVALUATION, CALIBRATION = 600, 128


@pytest.fixture(scope="module")
def digits(repository: Path) -> Path:
    return repository / "examples" / "digits"


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_the_committed_files_are_small(digits: Path) -> None:
    names = ("digits.onnx", "calib.npz", "eval.npz")
    assert sum((digits / name).stat().st_size for name in names) < MAX_BYTES


def test_enough_images_and_none_in_both_parts(digits: Path) -> None:
    calibration, evaluation = np.load(digits / "calib.npz"), np.load(digits / "eval.npz")
    assert calibration.files == ["image"]
    assert sorted(evaluation.files) == ["image", "y"]
    assert calibration["image"].shape == (CALIBRATION, 1, 8, 8)
    assert len(evaluation["image"]) == len(evaluation["y"]) >= MIN_EVALUATION
    assert evaluation["image"].dtype == calibration["image"].dtype == np.float32
    assert not rows(calibration["image"]) & rows(evaluation["image"])


def test_the_float_model_is_as_good_as_its_readme_says(digits: Path) -> None:
    evaluation = np.load(digits / "eval.npz")
    session = open_session(str(digits / "digits.onnx"))
    scores = session.run({"image": evaluation["image"]})["scores"]
    session.close()
    right = int((scores.argmax(1) == evaluation["y"]).sum())
    assert f"{right} of {len(scores)} evaluation images right" in (digits / "README.md").read_text()
    assert right / len(scores) >= 0.98


def test_the_settings_are_those_of_make_demo(digits: Path, repository: Path) -> None:
    demo = (repository / "Makefile").read_text().replace("\\\n", " ")
    values = load(digits / "edgeq.toml").values
    assert tomllib.loads((digits / "edgeq.toml").read_text()).keys() <= values.keys()
    for word in (values["target"], f"--{values['precision']}", values["metric"], *values["gate"]):
        assert word in demo


@pytest.mark.torch
@pytest.mark.slow
def test_the_script_makes_the_same_split_and_as_good_a_net(digits: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    shutil.copy(digits / "train.py", tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "train.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in ("calib.npz", "eval.npz"):
        assert (tmp_path / name).read_bytes() == (digits / name).read_bytes()
    right = int(done.stdout.splitlines()[-1].split()[0])
    assert right >= 0.98 * 640

"""Images on the command line: the refusal that can be pasted, and what `run` calls its samples."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.images


@pytest.fixture
def photos(tiny: Path) -> Path:
    """Ten class folders `0` to `9` of two images each."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for label in range(10):
        folder = tiny.parent / "photos" / str(label)
        folder.mkdir(parents=True)
        for at in range(2):
            pixels = rng.integers(0, 256, (9, 12), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{label}-{at}.png")
    return tiny.parent / "photos"


def test_the_hint_makes_it_work(edgeq: Callable[..., Any], photos: Path) -> None:
    build = ("build", "tiny.onnx", "-t", "x86-vnni", "--int8", "-d", "photos", "-o", "m.edgeq")
    refused = edgeq(*build)
    assert refused.code == 2
    assert "nothing says how they become input `image`, float32 [n, 1, 8, 8] [needs-preproc" in (
        refused.err
    )
    hint = next(line for line in refused.err.splitlines() if line.startswith("hint: say it"))
    subprocess.run(["sh", "-c", hint.split(": ", 2)[2]], check=True)
    built = edgeq(*build, "--eval", "photos", "--metric", "top1", "--labels", "labels.txt")
    assert built.code == 2
    assert "labels `labels.txt`: No such file" in built.err
    assert edgeq(*build, "--eval", "photos", "--metric", "top1").code == 0

    ran = edgeq("run", "m.edgeq", "-d", "photos/3", "--topk", "1")
    assert ran.code == 0
    assert "\n3-0.png  " in ran.out
    one = edgeq("run", "m.edgeq", "-d", "photos/3/3-1.png", "--topk", "2", "--json")
    assert json.loads(one.out)["names"] == ["3-1.png"]
    measured = edgeq("eval", "m.edgeq", "--eval", "photos", "--metric", "top1")
    assert measured.code == 0
    assert "20 samples" in measured.out


def test_a_truncated_file_is_named(edgeq: Callable[..., Any], photos: Path) -> None:
    path = photos / "4" / "4-1.png"
    path.write_bytes(path.read_bytes()[:60])
    Path("edgeq.toml").write_text("[input.image]\nresize = [8, 8]\n")
    done = edgeq("run", "tiny.onnx", "-d", "photos")
    assert done.code == 2
    assert "photos/4/4-1.png` is damaged" in done.err
    assert "[bad-image]" in done.err


def test_precisions_contradict(edgeq: Callable[..., Any]) -> None:
    done = edgeq("build", "tiny.onnx", "-t", "rpi5", "--fp16", "--int8")
    assert done.code == 2
    assert "`--fp16` and `--int8` contradict each other; give one" in done.err

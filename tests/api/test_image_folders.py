"""Images from end to end: calibrated, measured, packed, and run from a path on the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edgeq
from edgeq_runtime import reader

pytestmark = pytest.mark.images
TABLE = {"image": {"resize": 8, "crop": 8, "mean": [0.5], "std": [0.25]}}
CLASSES = tuple("abcdefghij")


@pytest.fixture
def folder(tmp_path: Path, net: Path) -> Path:
    """Ten class folders; each image lies where the float model puts it."""
    from PIL import Image

    from edgeq_runtime import InputSpec

    root = tmp_path / "photos"
    for name in CLASSES:
        (root / name).mkdir(parents=True)
    session = edgeq.load(
        edgeq.build(net, target="x86-vnni", precision="fp32", out="f.edgeq").bundle
    )
    rng = np.random.default_rng(0)
    spec = InputSpec.from_table("image", TABLE["image"])
    for at in range(40):
        pixels = rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)
        scores = session.run(spec.apply(pixels)[None])["scores"]
        Image.fromarray(pixels).save(root / CLASSES[scores.argmax()] / f"{at}.png")
    for name in CLASSES:
        if not list((root / name).iterdir()):
            (root / name).rmdir()
    Path("labels.txt").write_text("\n".join(CLASSES))
    return root


def test_a_folder_of_images_from_end_to_end(net: Path, folder: Path) -> None:
    settings = edgeq.BuildSettings(metric="top1", input=TABLE, labels="labels.txt")
    built = edgeq.build(
        net,
        target="x86-vnni",
        precision="int8",
        data=str(folder),
        evaluate=str(folder),
        settings=settings,
    )
    assert built.calibration is not None
    assert built.calibration["samples"] == 40
    assert built.metrics[0]["baseline"] == 1.0
    assert built.metrics[0]["n"] == 40
    assert any(note.startswith("images: 40 images decoded by Pillow") for note in built.notes)
    bundle = built.bundle or ""
    assert reader.read(bundle).manifest.input_specs["image"].crop == 8

    measured = edgeq.api.evaluate(bundle, evaluate=str(folder), metric="top1")
    assert measured.metrics[0]["value"] == built.metrics[0]["value"]
    ran = edgeq.api.run(bundle, data=str(folder), topk=1)
    paths = sorted(folder.rglob("*.png"))
    assert ran.names == tuple(path.name for path in paths)
    with edgeq.load(bundle) as runner:
        for path, best in zip(paths, ran.top, strict=True):
            scores = runner.run_image(path)["scores"][0]
            assert best[0][:2] == (scores.argmax(), CLASSES[scores.argmax()])
    one = edgeq.api.run(bundle, data=paths[0], topk=1)
    assert (one.names, one.top[0]) == ((paths[0].name,), ran.top[0])


def test_a_float_model_takes_labels_and_tables(net: Path, folder: Path) -> None:
    measured = edgeq.api.evaluate(
        net, evaluate=str(folder), metric="top1", input=TABLE, labels="labels.txt"
    )
    assert measured.metrics[0]["value"] == 1.0


def test_the_same_images_give_the_same_bundle(
    net: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = []
    settings = edgeq.BuildSettings(input=TABLE)
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        Path("photos").symlink_to(folder)
        given = folder if place == "one" else f"../{folder.name}"
        built = edgeq.build(net, target="rpi5", precision="int8", data=given, settings=settings)
        bundles.append(Path(built.bundle or "").read_bytes())
    assert bundles[0] == bundles[1]

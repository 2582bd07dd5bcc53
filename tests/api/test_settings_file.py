"""`edgeq.api.init`: a settings file whose every line holds once it is switched on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeq import EdgeqError, config
from edgeq.api import build, init
from edgeq.quality import parse_gate
from edgeq.report.template import guessed_layout, guessed_shape, text
from edgeq_runtime import TensorInfo

Save = Callable[..., Path]


def switched_on(written: str) -> str:
    """Every setting that is off, on: `#` and no space before it."""
    lines = [
        line[1:] if line.startswith("#") and not line.startswith("# ") else line
        for line in written.splitlines()
    ]
    return "\n".join(lines) + "\n"


@pytest.fixture
def tokens(save: Save) -> Path:
    return save(
        "g (int64[N,T] ids, float[N,T] mask) => (float[N,T] y) "
        "{ f = Cast <to = 1> (ids) y = Mul (f, mask) }",
        "tokens.onnx",
    )


def test_figures_are_imagenet_s_where_there_are_three_channels(net: Path, save: Save) -> None:
    init(net.name, target="rpi5", out="colour.toml")
    written = Path("colour.toml").read_text()
    assert "the figures are ImageNet's:" in written
    assert "#mean = [0.485, 0.456, 0.406]" in written
    grey = save("g (float[N,1,8,8] x) => (float[N,1,8,8] y) { y = Relu (x) }", "grey.onnx")
    init(grey.name, target="rpi5", out="grey.toml")
    assert "the figures are placeholders:" in Path("grey.toml").read_text()


@pytest.mark.parametrize("which", ["net", "tokens"])
def test_every_line_loads_once_it_is_switched_on(
    which: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(which)
    init(model.name, target="rpi5")
    written = Path("edgeq.toml").read_text()
    Path("on.toml").write_text(switched_on(written))
    loaded = config.load("on.toml").values
    config.BuildSettings(**loaded)
    parse_gate(loaded["gate"])
    missing = set(config.FIELDS) - set(loaded)
    # only what does not fit the model is left out: it has no classes, no images, or no free sizes
    assert missing == ({"shape"} if which == "net" else {"labels", "input"})
    assert loaded["model"] == model.name
    assert config.load("edgeq.toml").values == {"model": model.name, "target": "rpi5"}


def test_the_example_fits_the_model(tokens: Path) -> None:
    found = init(tokens.name)
    assert found.guessed == ("shape of `ids`", "shape of `mask`")
    Path("on.toml").write_text(switched_on(Path("edgeq.toml").read_text()))
    assert config.load("on.toml").values["shape"] == {"ids": (1, 128), "mask": (1, 128)}


def test_build_takes_the_file_as_it_is(net: Path, images: np.ndarray) -> None:
    init(net.name, target="x86-avx2")
    settings = config.resolve({}, {}, "edgeq.toml").settings
    built = build(settings=settings)
    assert (built.ok, built.precision, built.target) == (True, "fp32", "x86-avx2")


def test_paths_are_relative_to_the_file(net: Path, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    init(net.name, target="rpi5", out="conf/small.toml")
    written = config.load("conf/small.toml").values["model"]
    assert os.path.samefile(written, net)
    assert 'model = "../net.onnx"' in Path("conf/small.toml").read_text()
    found = init(net, target="rpi5", out="absolute.toml")
    assert found.model == str(net)


def test_what_is_there_stays(net: Path) -> None:
    Path("edgeq.toml").write_text("mine")
    with pytest.raises(EdgeqError, match=r"^`edgeq.toml` exists \[output-exists\]$") as caught:
        init(net)
    assert caught.value.hints == ("write elsewhere: `-o other.toml`", "or replace it: `--force`")
    assert Path("edgeq.toml").read_text() == "mine"
    init(net, force=True)
    assert Path("edgeq.toml").read_text().startswith("# Settings")
    assert sorted(path.name for path in Path().iterdir()) == ["edgeq.toml", "net.onnx"]


def test_a_folder_is_never_replaced(net: Path) -> None:
    Path("edgeq.toml").mkdir()
    with pytest.raises(EdgeqError, match=r"`edgeq.toml` is no file, and is not replaced"):
        init(net, force=True)


def test_refusals_come_before_the_work(net: Path) -> None:
    with pytest.raises(EdgeqError, match=r"no folder `absent` to write into \[no-such-folder\]"):
        init(net, out="absent/edgeq.toml")
    with pytest.raises(EdgeqError, match=r"\[unknown-target\]"):
        init(net, target="rpi6")
    with pytest.raises(EdgeqError, match=r"\[no-such-model\]"):
        init("absent.onnx")
    assert not Path("edgeq.toml").exists()


def test_names_that_toml_must_quote(save: Save) -> None:
    name = 'we"ird.onnx'
    save("g (float[N,3,8,8] x) => (float[N,3,8,8] y) { y = Relu (x) }", name)
    init(name, target="rpi5")
    assert config.load("edgeq.toml").values["model"] == name
    odd = 'a"\\\x7f\n\t\x01é😀'
    Path("odd.toml").write_text(f"model = {text(odd)}")
    assert config.load("odd.toml").values["model"] == odd


def test_a_path_that_is_no_text_is_refused(net: Path) -> None:
    odd = os.fsdecode(b"\xff.onnx")
    os.rename(net, odd)
    with pytest.raises(EdgeqError, match=r"is not UTF-8, and TOML holds nothing else \[config\]"):
        init(odd)


def info(*shape: int | str, dtype: str = "float32") -> TensorInfo:
    return TensorInfo("x", dtype, shape)


def test_layouts_are_guessed_by_the_shape_alone() -> None:
    assert guessed_layout(info("n", 3, 8, 9)) == ("nchw", (8, 9))
    assert guessed_layout(info("n", 8, 9, 1)) == ("nhwc", (8, 9))
    assert guessed_layout(info("n", 3, "h", "w")) == ("nchw", (224, 224))
    for not_images in (info("n", 8, 8, 8), info("n", 3, 8), info("n", 3, 8, 8, dtype="int64")):
        assert guessed_layout(not_images) is None


def test_shapes_are_guessed_where_an_inner_axis_is_free() -> None:
    assert guessed_shape(info("n", 3, 8, 8)) is None
    assert guessed_shape(info("n", "t")) == "1x128"
    assert guessed_shape(info(4, "t", 7)) == "4x128x7"
    assert guessed_shape(info("n", 3, "h", "w")) == "1x3x224x224"

"""Settings: what each key takes, where each value comes from, and how a mistake is told."""
# ruff: noqa: E501 - tables of whole messages, one row each

import re
import time
import tomllib
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeq import config
from edgeq.config import FIELDS, BuildSettings, load, parse_shape, resolve
from edgeq.errors import EdgeqError

WHOLE = """\
# a comment = "not a key"
model = "mobilenet_v2.onnx"
data = "calib/"
eval = "eval.py:top1"
gate = ["top1>=-1pt", "size<5MB"]
target = "rpi5"
precision = "int8"
keep_float = ["head/*"]
samples = 64
as = "dir"
labels = "labels.txt"
out = "out/m.edgeq"
metric = "top1"
algo = "p99.99"
weights = "int8"
acts = "static"
strict = true
force = false
synthetic_data = false
shape = { image = [1, 3, 224, 224], mask = "1x77" }

[input.image]                          # the model's input name
resize = 256
crop = 224
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
layout = "nchw"
"""


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write edgeq.toml into the current folder and return its (relative) path."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        Path("edgeq.toml").write_text(text)
        return Path("edgeq.toml")

    return write


def refused(path: Path) -> EdgeqError:
    with pytest.raises(EdgeqError) as caught:
        load(path)
    assert caught.value.slug == "config"
    return caught.value


def test_a_whole_file(toml: Any) -> None:
    settings, origins = resolve({}, {}, toml(WHOLE))
    assert settings == BuildSettings(
        model="mobilenet_v2.onnx",
        data="calib",
        eval="eval.py:top1",
        gate=("top1>=-1pt", "size<5MB"),
        target="rpi5",
        precision="int8",
        keep_float=("head/*",),
        samples=64,
        packaging="dir",
        labels="labels.txt",
        out="out/m.edgeq",
        metric="top1",
        algo="p99.99",
        weights="int8",
        acts="static",
        strict=True,
        shape={"image": (1, 3, 224, 224), "mask": (1, 77)},
        input={
            "image": {
                "resize": 256,
                "crop": 224,
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
                "layout": "nchw",
            }
        },
    )
    assert origins["model"] == "edgeq.toml:2"
    assert origins["gate"] == "edgeq.toml:5"
    assert origins["packaging"] == "edgeq.toml:10"
    assert origins["input"] == "edgeq.toml:22"
    assert origins["force"] == "edgeq.toml:18"


def test_every_field_has_an_origin_and_none_is_the_default(toml: Any) -> None:
    settings, origins = resolve({}, {})
    assert settings == BuildSettings()
    assert origins == {item.name: "default" for item in fields(BuildSettings)}


def test_flags_beat_the_environment_beats_the_file(toml: Any) -> None:
    path = toml('target = "rpi4"\nsamples = 1\nmetric = "mae"\nmodel = "m.onnx"\n')
    env = {"EDGEQ_SAMPLES": "2", "EDGEQ_METRIC": "mse", "EDGEQ_STRICT": "yes", "EDGEQ_OTHER": "x"}
    settings, origins = resolve({"metric": "top1", "out": None}, env, path)
    assert (settings.target, settings.samples, settings.metric) == ("rpi4", 2, "top1")
    assert settings.strict is True
    assert settings.out is None
    assert origins["target"] == "edgeq.toml:1"
    assert origins["samples"] == "EDGEQ_SAMPLES"
    assert origins["strict"] == "EDGEQ_STRICT"
    assert origins["metric"] == "flag"
    assert origins["out"] == "default"


def test_the_environment_takes_lists_shapes_and_the_word_of_a_flag() -> None:
    env = {
        "EDGEQ_GATE": "top1>=-1pt, size<5MB",
        "EDGEQ_KEEP_FLOAT": "head/*",
        "EDGEQ_SHAPE": "image=1x3x8x8,mask=1x4",
        "EDGEQ_AS": "dir",
        "EDGEQ_FORCE": "0",
        "EDGEQ_DATA": "",
        "EDGEQ_INPUT": "nonsense",
    }
    settings, origins = resolve({}, env)
    assert settings.gate == ("top1>=-1pt", "size<5MB")
    assert settings.shape == {"image": (1, 3, 8, 8), "mask": (1, 4)}
    assert (settings.packaging, settings.force, settings.data) == ("dir", False, None)
    assert (origins["packaging"], origins["data"], origins["input"]) == (
        "EDGEQ_AS",
        "default",
        "default",
    )


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("EDGEQ_SAMPLES", "many", 'must be a whole number of 1 or more, got the string `"many"`'),
        ("EDGEQ_SAMPLES", "0", "must be a whole number of 1 or more, got the integer `0`"),
        ("EDGEQ_STRICT", "maybe", 'must be true or false, got the string `"maybe"`'),
        (
            "EDGEQ_PRECISION",
            "int4",
            'must be one of `auto`, `fp32`, `fp16`, `int8`, got the string `"int4"`',
        ),
        ("EDGEQ_SHAPE", "image", "holds a shape `image` is not NAME=1x3x224x224"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, problem: str) -> None:
    with pytest.raises(EdgeqError, match=rf"^{re.escape(f'{variable} {problem}')} \[config\]$"):
        resolve({}, {variable: value})


def test_the_gate_may_be_a_comma_string(toml: Any) -> None:
    assert load(toml('gate = "top1>=-1pt, size<5MB"')).values["gate"] == ("top1>=-1pt", "size<5MB")


# -- paths --------------------------------------------------------------------------------------


def test_relative_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    path = folder / "edgeq.toml"
    path.write_text(
        'model = "m.onnx"\neval = "code/eval.py:top1"\ndata = "/abs/calib.npz"\nlabels = "../l.txt"\n'
    )
    values = load(path).values
    assert values["model"] == str(folder / "m.onnx")
    assert values["eval"] == str(folder / "code" / "eval.py") + ":top1"
    assert values["data"] == "/abs/calib.npz"
    assert Path(values["labels"]).resolve() == tmp_path / "l.txt"


def test_flags_and_variables_start_at_the_current_folder(tmp_path: Path) -> None:
    path = tmp_path / "edgeq.toml"
    path.write_text('target = "rpi5"\n')
    settings, _ = resolve({"model": "m.onnx"}, {"EDGEQ_DATA": "calib"}, path)
    assert (settings.model, settings.data) == ("m.onnx", "calib")


# -- mistakes, each with its line ----------------------------------------------------------------


def test_the_example_of_the_style_guide(toml: Any) -> None:
    error = refused(toml('model = "m"\ndata = "d"\n\n\n\n\nevl = "eval.py:top1"\n'))
    assert str(error) == "edgeq.toml:7: unknown key `evl` [config]"
    assert error.hints == ("did you mean `eval`?",)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("keep-float = []", "edgeq.toml:1: unknown key `keep-float`", "did you mean `keep_float`?"),
        ('packaging = "dir"', "edgeq.toml:1: unknown key `packaging`", "did you mean `as`?"),
        ('[device.pi]\nurl = "x"', "edgeq.toml:1: unknown key `device`", None),
        ('target = "a"\n[build]\nmodel = "x"', "edgeq.toml:2: unknown key `build`", None),
        ("\nsamples = 1.5", "edgeq.toml:2: `samples` must be a whole number of 1 or more, got the float `1.5`", None),
        ("samples = true", "edgeq.toml:1: `samples` must be a whole number of 1 or more, got the boolean `true`", None),
        ('samples = "8"', 'edgeq.toml:1: `samples` must be a whole number of 1 or more, got the string `"8"`', None),
        ("strict = 1", "edgeq.toml:1: `strict` must be true or false, got the integer `1`", None),
        ('model = ""', 'edgeq.toml:1: `model` must be a string that is not empty, got the string `""`', None),
        ("model = 3", "edgeq.toml:1: `model` must be a string that is not empty, got the integer `3`", None),
        ("model = {a = 1}", "edgeq.toml:1: `model` must be a string that is not empty, got a table", None),
        ('precision = "int88"', 'edgeq.toml:1: `precision` must be one of `auto`, `fp32`, `fp16`, `int8`, got the string `"int88"`', "did you mean `int8`?"),
        ('as = "tar"', 'edgeq.toml:1: `as` must be one of `zip`, `dir`, got the string `"tar"`', None),
        ("gate = [1]", "edgeq.toml:1: `gate` must hold strings that are not empty, got the integer `1`", None),
        ("keep_float = 1979-05-27", "edgeq.toml:1: `keep_float` must be a list of strings or a comma string, got a date", None),
        ("shape = 3", "edgeq.toml:1: `shape` must be NAME=1x3x224x224 or a table of them, got the integer `3`", None),
        ("[shape]\na = [1]\nb = [1, 0]", "edgeq.toml:3: `shape.b` must be [1, 3, 224, 224]", 'b = "1x3x224x224"'),
        ('[shape]\nimage = "1x3x"', "edgeq.toml:2: `shape.image` must be", None),
        ("input = 3", "edgeq.toml:1: `input` must be tables `[input.NAME]`, got the integer `3`", None),
        ("[input]\nimage = 3", "edgeq.toml:2: `input.image` must be a table `[input.image]`", None),
        ("[input.image]\nresize = 8\nmeen = 1", "edgeq.toml:3: `input.image.meen` is wrong: input `image`: unknown key `meen`", "did you mean `mean`?"),
        ("[input.image]\n\nresize = -8", "edgeq.toml:3: `input.image.resize` is wrong", None),
        ("samples = 3\nsamples = 4", "edgeq.toml:2: not TOML: cannot overwrite a value", None),
        ("model = 'a\n", "edgeq.toml:2: not TOML: expected", None),
        ("a = [[\n", "edgeq.toml:2: not TOML: ", None),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(
    toml: Any, text: str, message: str, hint: str | None
) -> None:
    error = refused(toml(text))
    assert error.message.startswith(message), error.message
    assert hint is None or error.hints == (hint,)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(
        EdgeqError, match=r"^no/such.toml: cannot be read: No such file .*\[config\]$"
    ):
        load("no/such.toml")


def test_text_that_is_not_utf8_has_its_line(toml: Any) -> None:
    path = toml("")
    path.write_bytes(b'model = "m"\nlabels = "\xff"\n')
    assert refused(path).message == "edgeq.toml:2: not UTF-8 text"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("a = " + "9" * 100_000, "not TOML"),
        ("#" * (config.MAX_FILE_BYTES + 1), "larger than 1048576 bytes"),
        ("samples = [" + "1, " * 200_000 + "]", "must be a whole number"),
        ("x = '''" + "\n" * 500_000 + "'''", "unknown key `x`"),
    ],
)
def test_a_hostile_file_is_refused_at_once(toml: Any, text: str, problem: str) -> None:
    path = toml(text)
    start = time.process_time()
    assert problem in refused(path).message
    assert time.process_time() - start < 2.0


def test_nothing_in_the_file_is_executed(toml: Any, tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("open('ran', 'w')\n")
    load(toml('eval = "evil.py:f"\ndata = "evil.py:g"\n'))
    assert not (tmp_path / "ran").exists()


# -- lines ---------------------------------------------------------------------------------------


def test_lines_are_found_past_strings_comments_and_arrays() -> None:
    text = (
        'a = """\nx = 1\n"quoted" \\""" and \'more\'\n"""\n'  # 1-4
        "b = '''\ny = '' 2\n'''  # ''' \n"  # 5-7
        'c = [ # [\n  "]", # ]\n  {k = "="},\n]\n'  # 8-11
        '"d d" . e = "#"\n'  # 12
        "[ f . 'g.h' ]\ni = 1\n"  # 13-14
        "[[j]]\nk = 1\n[[j]]\nk = 2\n"  # 15-18
        'l."m\\u0041" = 1'  # 19
    )
    tomllib.loads(text)
    lines = dict(config._key_lines(text))
    assert lines == {
        ("a",): 1, ("b",): 5, ("c",): 8, ("d d",): 12, ("d d", "e"): 12,
        ("f",): 13, ("f", "g.h"): 13, ("f", "g.h", "i"): 14,
        ("j",): 15, ("j", "k"): 16, ("j", "l"): 19, ("j", "l", "mA"): 19,
    }  # fmt: skip


BARE = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_-]{0,8}\Z")
VALUES = st.one_of(
    st.integers(-5, 5).map(str),
    st.text("ab\"'#[]{}=\\ \n", max_size=12).map(
        lambda s: '"' + s.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    ),
    st.text('ab"#[]{}= \n', max_size=12).map(lambda s: f"'''{s}'''"),
    st.lists(st.sampled_from(['"]"', "1", "'['", "{a = 1}"]), max_size=4).map(
        lambda items: "[\n" + "".join(f"{item}, # ] ' \"\n" for item in items) + "]"
    ),
)


@given(st.dictionaries(BARE, VALUES, max_size=8), st.integers(0, 3))
def test_every_top_level_key_has_the_line_it_is_written_on(table: dict[str, str], gap: int) -> None:
    text, wanted = "", {}
    for key, value in table.items():
        text += "\n" * gap
        wanted[(key,)] = text.count("\n") + 1
        text += f"{key} = {value} # note\n"
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # integers beside strings in one array and the like are tomllib's to judge
    assert dict(config._key_lines(text)) == wanted


# -- shapes and the dataclass --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "dims"),
    [
        ("image=1x3x224x224", "image", (1, 3, 224, 224)),
        ("x=7", "x", (7,)),
        ("a=b=2x2", "a=b", (2, 2)),
        ("model/input:0=1x4", "model/input:0", (1, 4)),
    ],
)
def test_shapes(text: str, name: str, dims: tuple[int, ...]) -> None:
    assert parse_shape(text) == (name, dims)


@pytest.mark.parametrize(
    "text",
    ["", "image", "image=", "=1x2", "image=1x", "image=x1", "image=0x3", "image=-1", "image=1 x 2",
     "image=1X2", "image=1.5", "image=" + "9" * 40, "image=" + "x".join(["1"] * 17), "image=1x²"],
)  # fmt: skip
def test_what_is_no_shape(text: str) -> None:
    with pytest.raises(
        EdgeqError, match=rf"^shape `{re.escape(text)}` is not NAME=.* \[bad-shape\]$"
    ):
        parse_shape(text)


@given(st.text(min_size=1), st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=16))
def test_a_shape_survives_the_round_trip(name: str, dims: list[int]) -> None:
    assert parse_shape(f"{name}={'x'.join(map(str, dims))}") == (name, tuple(dims))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"precision": "int4"}, "`precision` must be one of `auto`, `fp32`, `fp16`, `int8`"),
        ({"samples": 0}, "`samples` must be a whole number of 1 or more, got the integer `0`"),
        ({"packaging": "tar"}, "`as` must be one of `zip`, `dir`"),
        ({"gate": 3}, "`gate` must be a list of strings or a comma string"),
        ({"shape": {"x": (0,)}}, "`shape` must be [1, 3, 224, 224]"),
        ({"input": {"x": {"resize": "big"}}}, "`input` is wrong: input `x`: `resize`"),
        ({"algo": None}, "`algo` must be a string that is not empty"),
        ({"strict": None}, "`strict` must be true or false, got a NoneType"),
    ],
)
def test_the_api_is_told_the_same(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(EdgeqError, match=rf"^{re.escape(message)}.*\[config\]$"):
        BuildSettings(**wrong)


def test_the_api_may_write_as_the_file_does() -> None:
    settings = BuildSettings(
        model=Path("m.onnx"),  # type: ignore[arg-type]
        gate="a>1,b<2",  # type: ignore[arg-type]
        keep_float=["x"],  # type: ignore[arg-type]
        shape={"x": [1, 2]},  # type: ignore[dict-item]
    )
    assert (settings.model, settings.gate, settings.keep_float) == (
        "m.onnx",
        ("a>1", "b<2"),
        ("x",),
    )
    assert settings.shape == {"x": (1, 2)}


def test_settings_are_frozen_and_keyword_only() -> None:
    with pytest.raises(FrozenInstanceError):
        BuildSettings().model = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        BuildSettings("x")  # type: ignore[misc]


def test_words_are_unique_and_cover_the_fields() -> None:
    words = [row.word for row in FIELDS.values()]
    assert len(set(words)) == len(words)
    assert tuple(FIELDS) == tuple(item.name for item in fields(BuildSettings))


def test_a_flag_that_is_no_field_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="no fields of BuildSettings: \\['modle'\\]"):
        resolve({"modle": "x"}, {})

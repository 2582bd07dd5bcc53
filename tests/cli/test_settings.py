"""Where settings come from: flags over EDGEQ_* over edgeq.toml over defaults; each says which."""

from pathlib import Path

FILE = """model = "m.onnx"
target = "rpi4"
gate = ["top1>=-1pt", "size<5MB"]
keep_float = "head/*"

[input.image]
crop = 224
scale = 0.00392156862745098
"""


def test_show_config(edgeq, golden, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "edgeq.toml").write_text(FILE)
    monkeypatch.setenv("EDGEQ_TARGET", "rpi5")
    monkeypatch.setenv("EDGEQ_SAMPLES", "64")
    arguments = ["--int8", "--samples", "32", "--shape", "image=1x3x224x224", "--as", "dir"]
    golden("show-config", edgeq("build", *arguments, "--show-config"))


def test_show_config_as_json(edgeq, schema_check, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text(FILE)
    outcome = edgeq("build", "--config", "other.toml", "--force", "--show-config", "--json")
    rows = {row["name"]: row for row in schema_check(outcome.out)["settings"]}
    assert (outcome.code, outcome.err) == (0, "")
    assert rows["target"] == {"name": "target", "value": "rpi4", "origin": "other.toml:2"}
    assert rows["gate"]["value"] == ["top1>=-1pt", "size<5MB"]
    assert rows["force"] == {"name": "force", "value": True, "origin": "flag"}
    assert rows["input"]["value"]["image"]["crop"] == 224
    assert rows["samples"] == {"name": "samples", "value": None, "origin": "default"}


def test_a_flag_that_was_not_given_does_not_hide_the_file(edgeq, tmp_path: Path) -> None:
    (tmp_path / "edgeq.toml").write_text("strict = true\nsynthetic_data = true\n")
    lines = edgeq("build", "--show-config").out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    assert rows["strict"] == ["true", "edgeq.toml:1"]
    assert rows["synthetic_data"] == ["true", "edgeq.toml:2"]
    assert rows["force"] == ["false", "default"]


def test_every_setting_is_shown(edgeq, schema_check) -> None:
    from edgeq.config import FIELDS

    document = schema_check(edgeq("build", "--show-config", "--json").out)
    assert [row["name"] for row in document["settings"]] == [row.word for row in FIELDS.values()]


def test_every_setting_but_the_tables_has_a_flag() -> None:
    from edgeq.cli.build import command
    from edgeq.config import FIELDS

    flags = {param.name for param in command.params} | {"precision", "input"}
    assert set(FIELDS) <= flags

"""Weights outside the file: what is contained is read, every way out is refused.

Each attack is named. onnxruntime 1.31.1 reads the hard link, and onnx before 1.21 the symbolic
ones (CVE-2022-25882, CVE-2024-27318, CVE-2026-27489, -34446, -34447).
"""

import hashlib
import os
import resource
import socket

import numpy as np
import pytest
from onnx import TensorProto

from edgeq import EdgeqError
from edgeq.ir import constant
from edgeq_converters.read import external_data
from edgeq_converters.read.onnx import read

DATA = np.arange(16, dtype=np.float32)


def pointer(**entries: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.fixture
def folder(tmp_path):
    """A model's folder with honest weights, beside it a secret that must never be read."""
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "w.bin").write_bytes(bytes(8) + DATA.tobytes())
    (tmp_path / "secret.bin").write_bytes(DATA.tobytes())
    return inside


@pytest.fixture
def attack(folder, weights):
    """attack(**entries): the message of the refusal."""

    def message(**entries: str) -> str:
        path = folder / "m.onnx"
        path.write_bytes(weights(pointer(**entries)).SerializeToString())
        with pytest.raises(EdgeqError) as caught:
            read(path)
        assert caught.value.slug == "external-data"
        return caught.value.message

    return message


@pytest.mark.parametrize("location", ["w.bin", "./w.bin", ".//w.bin"])
def test_a_plain_file_beside_the_model_is_read(folder, weights, location):
    path = folder / "m.onnx"
    data = weights(pointer(location=location, offset="8", length="64")).SerializeToString()
    path.write_bytes(data)
    result = read(path)
    value = result.graph.value("w")
    np.testing.assert_array_equal(constant(value), DATA.reshape(4, 4))
    assert result.size_bytes == len(data) + 64
    assert result.sha256 == hashlib.sha256(data + DATA.tobytes()).hexdigest()


def test_a_file_in_a_folder_below_is_read(folder, weights):
    (folder / "parts").mkdir()
    (folder / "w.bin").rename(folder / "parts" / "w.bin")
    path = folder / "m.onnx"
    path.write_bytes(weights(pointer(location="parts/w.bin", offset="8")).SerializeToString())
    assert read(path).graph.parameter_count == 16


def test_the_models_own_folder_may_be_reached_by_a_link(folder, weights, tmp_path):
    (folder / "m.onnx").write_bytes(weights(pointer(location="w.bin")).SerializeToString())
    (tmp_path / "link").symlink_to(folder)
    assert read(tmp_path / "link" / "m.onnx").graph.parameter_count == 16


def test_equal_ranges_are_read_once(folder, weights):
    made = weights(pointer(location="w.bin"))
    made.graph.initializer.append(pointer(location="w.bin"))
    made.graph.initializer[1].name = "w2"
    path = folder / "m.onnx"
    path.write_bytes(made.SerializeToString())
    assert read(path).size_bytes == path.stat().st_size + 64


ATTACKS = {
    "parent": "../secret.bin",
    "parent in the middle": "sub/../../secret.bin",
    "parent and back": "../model/w.bin",
    "the folder itself": ".",
    "the folder by its parent": "sub/..",
}


@pytest.mark.parametrize("attack_name", ATTACKS)
def test_out_by_dots(attack, folder, attack_name):
    (folder / "sub").mkdir()
    location = ATTACKS[attack_name]
    assert (
        attack(location=location)
        == f"m.onnx: tensor `w` is at `{location}`, outside the model's folder"
    )


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "//host/share/w.bin", "C:\\w.bin", "C:w.bin", "\\w.bin"]
)
def test_out_by_an_absolute_path(attack, location):
    assert attack(location=location).endswith(f"`{location}`, an absolute path")


def test_out_by_a_backslash(attack):
    assert attack(location="..\\secret.bin").endswith("with a backslash")


def test_out_by_a_nul_byte(attack):
    assert attack(location="w.bin\0../secret.bin") == "m.onnx: tensor `w` names no file"


def test_out_by_a_symbolic_link(attack, folder, tmp_path):
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    assert attack(location="link.bin").endswith("and `link.bin` is a symbolic link")


def test_a_symbolic_link_that_stays_inside_is_refused_too(attack, folder):
    (folder / "link.bin").symlink_to("w.bin")
    assert attack(location="link.bin").endswith("and `link.bin` is a symbolic link")


def test_out_by_a_linked_folder(attack, folder, tmp_path):
    (folder / "sub").symlink_to(tmp_path)
    assert attack(location="sub/secret.bin").endswith("and `sub` is a symbolic link")


def test_out_by_a_link_put_there_in_between(attack, folder, tmp_path, monkeypatch):
    """The look finds a file, the opening a link: O_NOFOLLOW refuses."""
    (folder / "w.bin").unlink()
    (folder / "w.bin").symlink_to(tmp_path / "secret.bin")
    monkeypatch.setattr(external_data.ExternalData, "_refuse_links", lambda *arguments: None)
    assert attack(location="w.bin").startswith("m.onnx: tensor `w` is in `w.bin`, not readable: ")


def test_out_by_a_folder_swapped_in_between(attack, folder, tmp_path, monkeypatch):
    (folder / "sub").symlink_to(tmp_path)
    monkeypatch.setattr(external_data.ExternalData, "_refuse_links", lambda *arguments: None)
    assert "not readable: " in attack(location="sub/secret.bin")


def test_out_by_a_hard_link(attack, folder, tmp_path):
    os.link(tmp_path / "secret.bin", folder / "hard.bin")
    assert attack(location="hard.bin").endswith("`hard.bin`, which has 2 names (hard links)")


def test_a_named_pipe_is_not_waited_for(attack, folder):
    os.mkfifo(folder / "pipe")
    assert attack(location="pipe").endswith("`pipe`, which is not a regular file")


def test_a_folder_is_no_file(attack, folder):
    (folder / "sub").mkdir()
    assert attack(location="sub").endswith("`sub`, which is not a regular file")


def test_a_socket_is_no_file(attack, folder, monkeypatch):
    monkeypatch.chdir(folder)  # a socket's path may have 107 characters
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("sock")
        assert "not readable" in attack(location="sock")


def test_a_missing_file_is_named(attack):
    assert (
        attack(location="lost.bin")
        == "m.onnx: tensor `w` is in `lost.bin`, and there is no such file"
    )


def test_a_file_used_as_a_folder(attack):
    assert "`w.bin/x`" in attack(location="w.bin/x")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "9"}, "wants bytes 9 to 73 of `w.bin`, which has 72"),
        ({"offset": "9" * 18}, "of `w.bin`, which has 72"),
        ({"length": "63"}, "needs 64 bytes and its entry says 63"),
        ({"length": "9" * 18}, "needs 64 bytes and its entry says"),
        ({"offset": str(2**63)}, "which is no byte count"),
        ({"offset": "-8"}, "has offset `-8`, which is no byte count"),
        ({"offset": "1e1"}, "which is no byte count"),
        ({"offset": " 8"}, "which is no byte count"),
        ({"offset": "\u0661"}, "which is no byte count"),
        ({"length": "9" * 5000}, "which is no byte count"),
        ({"__class__": "x"}, "has the key `__class__`, which is unknown"),
    ],
)
def test_ranges_outside_the_file(attack, entries, message):
    assert message in attack(location="w.bin", **entries)


def test_a_key_given_twice(folder, weights):
    tensor = pointer(location="w.bin")
    tensor.external_data.add(key="location", value="../secret.bin")
    path = folder / "m.onnx"
    path.write_bytes(weights(tensor).SerializeToString())
    with pytest.raises(EdgeqError, match="has the key `location`, twice"):
        read(path)


def test_no_location_at_all(attack):
    assert attack(offset="0") == "m.onnx: tensor `w` names no file"


def test_a_file_that_shrinks_while_it_is_read(attack, folder, monkeypatch):
    real = os.fstat

    def grown(descriptor: int) -> os.stat_result:
        status = list(real(descriptor))
        status[6] += 1000
        return os.stat_result(status)

    monkeypatch.setattr(external_data.os, "fstat", grown)
    assert (
        attack(location="w.bin", offset="32") == "m.onnx: `w.bin` became shorter while it was read"
    )


def test_a_model_of_more_files_than_may_be_open(folder, model):
    """Exporters write a file for each tensor; each is closed before the next is opened."""
    files = len(os.listdir("/proc/self/fd")) + 20
    made = model("g (float[N,4] x) => (float[N,4] y) { y = Identity (x) }")
    for index in range(files):
        (folder / f"w{index}").write_bytes(DATA.tobytes())
        made.graph.initializer.append(pointer(location=f"w{index}"))
        made.graph.initializer[-1].name = f"w{index}"
        before = made.graph.node[-1]
        before.output[0] = f"h{index}"
        made.graph.node.add(
            op_type="MatMul", input=[f"h{index}", f"w{index}"], output=["y"], name=f"n{index}"
        )
    (folder / "m.onnx").write_bytes(made.SerializeToString())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, limits[1]))
    try:
        assert read(folder / "m.onnx").graph.parameter_count == 16 * files
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_dims_that_claim_more_than_any_file(folder, weights):
    tensor = pointer(location="w.bin")
    tensor.dims[0] = 2**60
    path = folder / "m.onnx"
    path.write_bytes(weights(tensor).SerializeToString())
    with pytest.raises(EdgeqError, match=r"which has 72 \[external-data\]"):
        read(path)


def test_tensors_in_bodies_are_contained_too(folder, model):
    text = """g (float[2] x, bool c) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] p) { p = Neg (x) },
                    else_branch = e () => (float[2] q) { q = Identity (x) }> }"""
    made = model(text)
    body = made.graph.node[0].attribute[0].g
    body.initializer.append(pointer(location="../secret.bin"))
    path = folder / "m.onnx"
    path.write_bytes(made.SerializeToString())
    with pytest.raises(EdgeqError, match="outside the model's folder"):
        read(path)

"""What a file is by its content, whatever its name says."""

import gzip
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from edgeq import EdgeqError
from edgeq_converters.read import files, sniff
from edgeq_converters.read.onnx import read


def zipped(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return buffer.getvalue()


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


HEADER = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
FILES = {
    "git-LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 7\n",
    "HTML page": b"\xef\xbb\xbf <!DOCTYPE html><html><body>404</body></html>",
    "HTML without doctype": b"<HTML>moved</HTML>",
    "XML document": b'<?xml version="1.0"?><net name="m"/>',
    "JSON document": b'{"model": 1}',
    "TensorFlow Lite": b"\x1c\x00\x00\x00TFL3" + bytes(64),
    "ONNX Runtime .ort": b"\x1c\x00\x00\x00ORTM" + bytes(64),
    "GGUF": b"GGUF\x03\x00\x00\x00" + bytes(64),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "NumPy array": saved(np.zeros(3)),
    "NumPy .npz": zipped("a.npy"),
    "safetensors": len(HEADER).to_bytes(8, "little") + HEADER + bytes(4),
    "Python pickle": pickle.dumps({"a": 1}),
    "PyTorch": zipped("model/data.pkl", "model/version"),
    "Keras": zipped("metadata.json", "config.json", "model.weights.h5"),
    "zip archive": zipped("readme.txt"),
    "gzip": gzip.compress(b"model"),
    "bzip2": b"BZh91AY",
    "xz": b"\xfd7zXZ\x00\x00",
    "zstandard": b"(\xb5/\xfd\x04",
    "7z": b"7z\xbc\xaf\x27\x1c",
    "tar": bytes(257) + b"ustar\x0000",
    "program": b"\x7fELF\x02\x01",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "JPEG": b"\xff\xd8\xff\xe0",
    "PDF": b"%PDF-1.7",
}


@pytest.mark.parametrize("kind", FILES)
def test_is_told_by_name(refusal, kind):
    error = refusal(FILES[kind])
    assert error.slug == "not-onnx"
    assert kind.removesuffix(" without doctype").split()[0] in str(error)


def test_an_empty_file_is_called_so(refusal):
    assert str(refusal(b"")) == "m.onnx is empty [not-onnx]"


def test_what_can_be_done_is_said(refusal):
    assert refusal(FILES["git-LFS pointer"]).hints == ("git lfs pull",)


def test_a_model_is_none_of_these(model):
    assert sniff.not_onnx(model().SerializeToString()) is None


def test_bytes_that_are_nothing_known_are_damaged(refusal):
    error = refusal(b"\xde\xad\xbe\xef" * 9)
    assert error.slug == "damaged-model"
    assert str(error).startswith("m.onnx cannot be parsed as ONNX (36 bytes): cut short, damaged")


def test_a_message_without_a_graph_is_not_a_model(refusal):
    assert refusal(b"\x08\x0a").slug == "not-onnx"


def test_a_missing_file(tmp_path):
    with pytest.raises(EdgeqError, match=r"there is no file `.*m\.onnx` \[no-such-model\]"):
        read(tmp_path / "m.onnx")


def test_a_folder(tmp_path):
    with pytest.raises(EdgeqError, match=r"is a folder, not an ONNX file \[not-onnx\]"):
        read(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(EdgeqError, match=r"is a named pipe, not an ONNX file \[not-onnx\]"):
        read(tmp_path / "m.onnx")


def test_a_device_is_not_read():
    with pytest.raises(EdgeqError, match=r"is a device, not an ONNX file \[not-onnx\]"):
        read("/dev/zero")


def test_a_path_that_cannot_be(tmp_path):
    with pytest.raises(EdgeqError, match=r"cannot be opened.*\[no-such-model\]"):
        read(tmp_path / "a\0b")


def test_the_size_is_bounded(tmp_path, monkeypatch, model):
    monkeypatch.setattr(files, "MAX_BYTES", 10)
    path = tmp_path / "m.onnx"
    path.write_bytes(model().SerializeToString())
    with pytest.raises(
        EdgeqError, match=r"bytes in one file or small tensors; at most 10 are read"
    ):
        read(path)

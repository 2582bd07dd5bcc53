"""The odd and broken files of `shared/data/robust`: each reads, or is refused by its slug.

`robust.tsv` holds what is expected; CASES.tsv beside the files says where they come from.
"""

import csv
import os
import time
from pathlib import Path

import pytest

from edgeq import EdgeqError
from edgeq.api.models import read_model
from edgeq.ir import check
from edgeq.passes import run_all

TABLE = Path(__file__).with_name("robust.tsv")
CPU_LIMIT_S = 10.0

with TABLE.open(newline="") as _rows:
    EXPECTED = {row["file"]: row["outcome"] for row in csv.DictReader(_rows, delimiter="\t")}


def outcome(path: Path) -> tuple[str, str]:
    """(slug or "reads", message)."""
    try:
        graph, _ = run_all(read_model(path, {}).graph)
    except EdgeqError as error:
        return error.slug, error.message
    check(graph)
    return "reads", path.name


@pytest.mark.shared
@pytest.mark.parametrize("name", EXPECTED)
def test_each_file(shared: Path, name: str):
    path = shared / "data" / "robust" / name
    before = sorted(os.listdir(path.parent))
    began = time.process_time()
    slug, message = outcome(path)
    assert slug == EXPECTED[name]
    assert message.startswith(name) and "\n" not in message
    assert time.process_time() - began < CPU_LIMIT_S
    assert sorted(os.listdir(path.parent)) == before


@pytest.mark.shared
def test_the_table_is_complete(shared: Path):
    files = {path.name for path in (shared / "data" / "robust").iterdir() if path.suffix != ".tsv"}
    assert files == set(EXPECTED)
    assert len(files) == 34


# what CASES.tsv asks a message to say
SAID = {
    "gitlfs_pointer_wav2letter.onnx": "git-LFS pointer",
    "edgetpu_mobilenet_v1_0.25_128.tflite": "custom operator `edgetpu-custom-op`",
    "audio_preprocessor_int8.tflite": "custom operator `SignalEnergy`",
    "coral_model_invoking_error.tflite": "custom operator `fake-op-double`",
    "seanet_int16_conv0.tflite": "is int16",
    "trunc_60pct_kws.tflite": "Model.operator_codes is said to be at byte 43280",
    "html_error_page.tflite": "an HTML page",
    "empty.onnx": "is empty",
    "nan_weights.onnx": "tensor `w` has 4 NaN of 16 values",
    "cyclic.onnx": "a cycle through `Add`, `Relu`",
    "unknown_domain.onnx": "`com.acme::MyOp`",
    "opset_999.onnx": "opset 999",
    "external_missing.onnx": "`weights_missing.bin`",
    "raw_data_short.onnx": "needs 64 bytes and has 40",
    "ortext_superresolution_pre_post.onnx": "`com.microsoft.extensions::DecodeImage`",
    "trunc_50pct_mnist.onnx": "cannot be parsed as ONNX (13,227 bytes)",
}


@pytest.mark.shared
@pytest.mark.parametrize("name", SAID)
def test_the_message_says_what_is_wrong(shared: Path, name: str):
    with pytest.raises(EdgeqError) as caught:
        read_model(shared / "data" / "robust" / name, {})
    assert SAID[name] in caught.value.message

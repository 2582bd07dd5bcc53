"""onnx's C++ runs in a child: crashes, hangs and deaths of it are one-line errors."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from onnx import parser

from edgeq import EdgeqError
from edgeq.ir import isolated
from edgeq.ir.isolated import OnnxChild, onnx_child

SPLIT = """<ir_version: 10, opset_import: ["": 18]>
g (float[4,3] x) => (float[4,3] y) {{ a, b{more} = Split <axis = 0, num_outputs = 2> (x)
    y = Concat <axis = 0> (a, b) }}"""


def model(more: str = "") -> bytes:
    return parser.parse_model(SPLIT.format(more=more)).SerializeToString()


@pytest.fixture
def child():
    made = OnnxChild()
    yield made
    made.close()


def test_one_child_serves_many_requests(child):
    for _ in range(3):
        said, data = child.ask({"step": "prepare", "opset": 21}, model())
        assert said == {} and data
    first = child._process.pid
    child.ask({"step": "infer"}, model())
    assert child._process.pid == first


def test_a_split_with_more_outputs_than_it_says_is_an_error(child):
    """Found by the fuzzer: onnx 1.23.2 indexes past the end of a vector and ends by SIGABRT."""
    with pytest.raises(EdgeqError, match=r"onnx was killed by SIG[A-Z]+ while inferring") as caught:
        child.ask({"step": "infer"}, model(", c"))
    assert caught.value.slug == "onnx-failed"
    assert child.ask({"step": "infer"}, model())[0] == {}


def test_a_hang_ends_at_the_limit(child, monkeypatch):
    child.ask({"step": "infer"}, model())
    os.kill(child._process.pid, signal.SIGSTOP)
    monkeypatch.setattr(isolated, "WALL_S", 0.2)
    monkeypatch.setattr(isolated, "WALL_PER_LIMIT", 0.0)
    with pytest.raises(EdgeqError, match="onnx did not finish inferring shapes in time"):
        child.ask({"step": "infer"}, model())


def test_processor_time_is_bounded(child, monkeypatch):
    """A long chain takes more than a millisecond; what counts is work, not waiting."""
    nodes = " ".join(f"t{i + 1} = Relu (t{i})" for i in range(3000))
    head = '<ir_version: 10, opset_import: ["": 17]> g (float[9] t0) => (float[9] t3000)'
    text = f"{head} {{ {nodes} }}"
    monkeypatch.setattr(isolated, "BASE_LIMIT_S", 1e-3)
    monkeypatch.setattr(isolated, "LIMIT_S_PER_BYTE", 0.0)
    with pytest.raises(EdgeqError, match="raising the opset within 0 s of processor time"):
        child.ask({"step": "prepare", "opset": 21}, parser.parse_model(text).SerializeToString())


def test_a_child_that_went_to_rest_is_started_again(child):
    child.ask({"step": "infer"}, model())
    os.kill(child._process.pid, signal.SIGALRM)
    child._process.wait()
    assert child.ask({"step": "infer"}, model())[0] == {}


def test_a_child_that_rests_just_then_is_started_again(child, monkeypatch):
    """The alarm may come between the look and the request."""
    child.ask({"step": "infer"}, model())
    os.kill(child._process.pid, signal.SIGALRM)
    child._process.wait()
    looks = iter((True, False))
    monkeypatch.setattr(OnnxChild, "_is_running", lambda self: next(looks))
    assert child.ask({"step": "infer"}, model())[0] == {}


def test_a_fork_does_not_share_its_parents_child(child):
    child.ask({"step": "infer"}, model())
    mine = child._process
    child._owner = -1  # as after os.fork
    child.ask({"step": "infer"}, model())
    assert child._process is not mine
    mine.kill()
    mine.communicate()


def test_there_is_one_per_process():
    assert onnx_child() is onnx_child()


def test_without_an_interpreter_it_says_so(child, monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(EdgeqError, match="no Python interpreter of its own"):
        child.ask({"step": "infer"}, model())


def test_what_fails_is_said_with_its_step(child):
    said, data = child.ask({"step": "prepare", "opset": 21}, model().replace(b"Concat", b"Concut"))
    assert data == b""
    assert said["failed"] in ("opset", "check")
    assert "Concut" in said["message"]

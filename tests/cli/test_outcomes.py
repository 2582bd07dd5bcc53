"""How a command can end: each way has an exit code, a slug and no traceback."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from edgeq import api
from edgeq.errors import EdgeqError

RAISED = {
    "edgeq-error": (EdgeqError("unknown-target", "there is no target `x`", "edgeq targets"), 2),
    "interrupted": (KeyboardInterrupt(), 130),
    "out-of-memory": (MemoryError(), 2),
    "disk-full": (OSError(errno.ENOSPC, "No space left on device", "out.edgeq"), 2),
    "no-permission": (PermissionError(errno.EACCES, "Permission denied", "/root/m.onnx"), 2),
    "bug": (KeyError("conv1"), 70),
    "bug-with-lines": (ValueError("first\nsecond"), 70),
    "bug-of-the-system": (FileNotFoundError(errno.ENOENT, "No such file", "own.json"), 70),
}


@pytest.fixture
def raising(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`edgeq doctor` raises this, whatever the machine."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def arrange(error: BaseException) -> None:
        def fail() -> None:
            raise error

        monkeypatch.setattr(api, "doctor", fail)

    return arrange


@pytest.mark.parametrize("name", RAISED)
def test_whatever_is_raised_is_told(edgeq, golden, raising, name: str) -> None:
    error, code = RAISED[name]
    raising(error)
    outcome = edgeq("doctor")
    assert (outcome.code, outcome.out) == (code, "")
    assert "Traceback" not in outcome.err
    golden(f"outcome-{name}", outcome)


@pytest.mark.parametrize("name", RAISED)
def test_whatever_is_raised_is_a_document(edgeq, schema_check, raising, name: str) -> None:
    error, code = RAISED[name]
    raising(error)
    outcome = edgeq("doctor", "--json")
    document = schema_check(outcome.out)
    assert (outcome.code, document["ok"]) == (code, False)
    assert f"[{document['error']['slug']}]" in outcome.err


def test_the_crash_file_holds_the_version_and_the_traceback(edgeq, raising, tmp_path) -> None:
    import edgeq as package

    raising(KeyError("conv1"))
    edgeq("doctor")
    (path,) = tmp_path.glob("edgeq-crash-*.txt")
    text = path.read_text()
    assert text.startswith(f"edgeq {package.__version__}\nPython ")
    assert text.rstrip().endswith("KeyError: 'conv1'")
    assert "in fail" in text


def test_a_crash_file_that_cannot_be_written_is_said(edgeq, raising, monkeypatch) -> None:
    raising(KeyError("conv1"))
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    outcome = edgeq("doctor")
    assert outcome.code == 70
    assert outcome.err.splitlines()[1:] == [
        "hint: set TMPDIR to a folder that takes the crash file"
    ]


def test_every_exit_code_of_an_error_is_that_of_its_slug(edgeq, raising, schema_check) -> None:
    from edgeq.errors import SLUGS

    for error, code in RAISED.values():
        raising(error)
        slug = schema_check(edgeq("doctor", "--json").out)["error"]["slug"]
        assert SLUGS[slug].exit_code == code


def test_control_c_ends_a_real_process_with_130(tmp_path: Path) -> None:
    """The function that yields the samples says when it is running, then waits to be stopped."""
    function = (
        "import time, pathlib\ndef f(run):\n    pathlib.Path('on').touch()\n    time.sleep(60)"
    )
    (tmp_path / "slow.py").write_text(function)
    started = _start(tmp_path, "eval", str(_identity(tmp_path)), "--eval", "slow.py:f")
    deadline = time.monotonic() + 60
    while not (tmp_path / "on").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=30)
    assert (started.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "error: interrupted [interrupted]"
    assert "Traceback" not in err


def _start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-m", "edgeq.cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _identity(folder: Path) -> Path:
    import onnx

    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]>'
        "g (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }"
    )
    onnx.save(model, folder / "relu.onnx")
    return folder / "relu.onnx"

"""The child process: real crashes, real hangs, real refusals; engines are entry points on disk."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx.parser
import pytest

from edgeq_runtime import EdgeqError, isolate
from edgeq_runtime.engines import onnxruntime as engine

Plugin = Callable[[str, str], None]

ENGINE = """
import os, signal, sys, time
import numpy as np
from edgeq_runtime.errors import EdgeqError
from edgeq_runtime.tensors import TensorInfo

FORMATS = ("onnx",)

def version():
    return "7.8.9"

def saturates():
    return False

class Session:
    engine, mode = "fake", "default"
    version = version()
    inputs = outputs = (TensorInfo("x", "float32", (2,)),)
    def run(self, feeds, names=None):
        {run}
        return feeds
    def close(self):
        pass

def open_session(model, **options):
    {load}
    return Session()
"""


@pytest.fixture
def fake(plugin: Plugin) -> Callable[..., str]:
    """`fake(load=..., run=...)`: an engine that does this, by name."""

    def make(load: str = "pass", run: str = "pass") -> str:
        plugin("fake", ENGINE.replace("{load}", load).replace("{run}", run))
        return "fake"

    return make


def test_a_model_that_loads_and_runs(float_model: bytes, tmp_path: Path) -> None:
    isolate.probe(float_model)
    path = tmp_path / "m.onnx"
    path.write_bytes(float_model)
    isolate.probe(path)
    isolate.probe(str(path))


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGILL", "SIGBUS", "SIGFPE"])
def test_a_crash_while_loading(fake: Callable[..., str], name: str) -> None:
    engine_name = fake(load=f"os.kill(os.getpid(), signal.{name})")
    with pytest.raises(EdgeqError) as caught:
        isolate.probe(b"model", engine=engine_name)
    message = f"fake 7.8.9 was killed by {name} while it loaded the model [engine-crashed]"
    assert str(caught.value) == message
    assert caught.value.exit_code == 2


def test_a_crash_while_running(fake: Callable[..., str]) -> None:
    engine_name = fake(run="os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(
        EdgeqError, match=r"fake 7\.8\.9 was killed by SIGSEGV while it ran the model"
    ):
        isolate.probe(b"model", engine=engine_name)


def test_a_real_segmentation_fault(fake: Callable[..., str]) -> None:
    engine_name = fake(load="import ctypes; ctypes.string_at(0)")
    with pytest.raises(EdgeqError, match=r"killed by SIGSEGV .*\[engine-crashed\]"):
        isolate.probe(b"model", engine=engine_name)


def test_a_crash_while_the_engine_is_imported(plugin: Plugin) -> None:
    """ONNX Runtime 1.21.0 on a Raspberry Pi 4 dies so."""
    plugin("fake", "import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    with pytest.raises(EdgeqError) as caught:
        isolate.probe(b"model", engine="fake")
    message = "fake (version unknown) was killed by SIGILL while it was imported [engine-crashed]"
    assert str(caught.value) == message
    assert "another version" in caught.value.hints[0]


def test_a_kill_from_outside_speaks_of_memory(fake: Callable[..., str]) -> None:
    engine_name = fake(load="os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(EdgeqError, match="SIGKILL") as caught:
        isolate.probe(b"model", engine=engine_name)
    assert caught.value.hints == ("the system may have run out of memory",)


def test_an_engine_that_exits(fake: Callable[..., str]) -> None:
    engine_name = fake(load="os._exit(3)")
    with pytest.raises(EdgeqError, match=r"fake 7.8.9 ended the process with status 3"):
        isolate.probe(b"model", engine=engine_name)


def test_an_engine_that_exits_in_silence(fake: Callable[..., str]) -> None:
    engine_name = fake(run="os._exit(0)")
    with pytest.raises(EdgeqError, match=r"fake 7.8.9 ended the process with status 0"):
        isolate.probe(b"model", engine=engine_name)


def test_a_crash_in_the_engines_teardown_is_no_crash(fake: Callable[..., str]) -> None:
    isolate.probe(
        b"model",
        engine=fake(load="import atexit; atexit.register(lambda: os.kill(os.getpid(), 11))"),
    )


def test_a_hang(fake: Callable[..., str]) -> None:
    engine_name = fake(load="time.sleep(600)")
    start = time.monotonic()
    with pytest.raises(EdgeqError) as caught:
        isolate.probe(b"model", engine=engine_name, timeout_s=1.5)
    assert str(caught.value) == "fake did not load and run the model within 1.5 s [engine-timeout]"
    assert time.monotonic() - start < 30


def test_a_hang_that_ignores_signals(fake: Callable[..., str]) -> None:
    hang = "[signal.signal(s, signal.SIG_IGN) for s in (1, 2, 13, 15)]; time.sleep(600)"
    with pytest.raises(EdgeqError, match=r"\[engine-timeout\]"):
        isolate.probe(b"model", engine=fake(load=hang), timeout_s=1.5)


def test_a_refusal_is_the_same_error_as_in_process() -> None:
    with pytest.raises(EdgeqError) as here:
        engine.open_session(b"junk")
    with pytest.raises(EdgeqError) as there:
        isolate.probe(b"junk")
    assert (str(there.value), there.value.hints) == (str(here.value), here.value.hints)


def test_hints_come_along(fake: Callable[..., str]) -> None:
    engine_name = fake(load="raise EdgeqError('bad-input', 'no', 'do this', 'or that')")
    with pytest.raises(EdgeqError, match=r"^no \[bad-input\]$") as caught:
        isolate.probe(b"model", engine=engine_name)
    assert caught.value.hints == ("do this", "or that")


def test_an_error_nobody_foresaw(fake: Callable[..., str]) -> None:
    with pytest.raises(EdgeqError, match=r"^fake: ZeroDivisionError: .* \[engine-failed\]$"):
        isolate.probe(b"model", engine=fake(load="1 / 0"))


def test_a_missing_engine() -> None:
    with pytest.raises(EdgeqError, match=r"\[unknown-engine\]"):
        isolate.probe(b"model", engine="nothing")


def test_what_an_engine_prints_does_not_matter(
    fake: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    noise = "print('{}' * 99999); os.write(1, b'{\"slug\": 1}\\n'); os.write(2, b'bang')"
    isolate.probe(b"model", engine=fake(load=noise))
    assert capfd.readouterr() == ("", "")


def test_the_engine_gets_the_model(fake: Callable[..., str], tmp_path: Path) -> None:
    model = os.urandom(3_000_000)
    check = "import hashlib; assert hashlib.sha256(model).hexdigest() == '{}'"
    import hashlib

    isolate.probe(model, engine=fake(load=check.format(hashlib.sha256(model).hexdigest())))


def test_an_engine_that_dies_before_it_read_the_model(plugin: Plugin) -> None:
    """The parent's pipe breaks while it still sends."""
    plugin("fake", "import os\nos._exit(5)\n")
    with pytest.raises(EdgeqError, match="status 5"):
        isolate.probe(bytes(5_000_000), engine="fake")


def test_given_arrays_arrive(fake: Callable[..., str]) -> None:
    check = (
        "assert feeds['x'].tolist() == [[1, 2], [3, 4]] and feeds['x'].dtype == np.int16, feeds; "
        "assert feeds['s'].tolist() == ['a', 'b'] and feeds['b'].dtype == bool"
    )
    feeds = {
        "x": np.array([[1, 2], [3, 4]], np.int16),
        "s": np.array(["a", "b"], dtype=object),
        "b": np.array([True]),
    }
    isolate.probe(b"model", engine=fake(run=check), feeds=feeds)
    with pytest.raises(EdgeqError, match="AssertionError"):
        isolate.probe(b"model", engine=fake(run=check), feeds={**feeds, "x": feeds["x"] + 1})


def model_of(text: str) -> bytes:
    head = '<ir_version: 10, opset_import: ["": 21]> '
    return onnx.parser.parse_model(head + text).SerializeToString()


def test_made_up_sizes_that_do_not_fit_are_no_error() -> None:
    """Zeros [1] for [n]: Reshape to [2, 2] cannot, and that says nothing of the model."""
    model = model_of("g (float[n] x) => (float[2,2] y) <int64[2] s = {2, 2}> { y = Reshape(x, s) }")
    isolate.probe(model)
    with pytest.raises(EdgeqError, match=r"\[engine-failed\]"):
        isolate.probe(model, feeds={"x": np.zeros(3, np.float32)})


def test_a_model_that_cannot_run_at_its_own_size() -> None:
    model = model_of(
        "g (float[3] x, int64[1] i) => (float[1] y) { z = Size(x)  j = Add(i, z) y = Gather(x, j) }"
    )
    with pytest.raises(EdgeqError, match=r"Gather.*\[engine-failed\]"):
        isolate.probe(model)


def test_zeros_of_every_kind() -> None:
    model = model_of(
        "g (string[n] a, bool[2] b, float16[1,1] c, int64 d) => (string[n] e) { e = Identity(a) }"
    )
    isolate.probe(model)
    made = isolate.zeros(engine.open_session(model).inputs)
    assert {name: array.shape for name, array in made.items()} == {
        "a": (1,),
        "b": (2,),
        "c": (1, 1),
        "d": (),
    }
    assert made["a"].tolist() == [""]


def test_an_input_of_absurd_size() -> None:
    model = model_of("g (float[4611686018427387904] x) => (float[1] y) { y = ReduceSum(x) }")
    with pytest.raises(EdgeqError, match=r"cannot make input `x`|\[engine-refused\]"):
        isolate.probe(model)


def test_a_memory_limit(fake: Callable[..., str]) -> None:
    with pytest.raises(EdgeqError, match="MemoryError"):
        isolate.probe(b"model", engine=fake(load="bytes(2**31)"), memory_limit_bytes=1_500_000_000)


def test_nothing_of_the_users_surroundings_gets_in(
    fake: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No PYTHONPATH, no sitecustomize, no module of the current folder."""
    trap = "raise SystemExit(9)\n"
    (tmp_path / "sitecustomize.py").write_text(trap)
    (tmp_path / "usercustomize.py").write_text(trap)
    (tmp_path / "json.py").write_text(trap)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "json.py"))
    isolate.probe(b"model", engine=fake())


def test_a_crash_leaves_no_core_file(fake: Callable[..., str]) -> None:
    check = "import resource; assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)"
    isolate.probe(b"model", engine=fake(load=check))


def test_the_child_ends_when_its_parent_is_gone(
    fake: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alarm is set: the parent's limit, and a margin, after which SIGALRM ends the child."""
    check = f"left = signal.alarm(0); assert 0 < left <= 50 + {isolate.ALARM_MARGIN_S}, left"
    isolate.probe(b"model", engine=fake(load=check), timeout_s=50)


def test_stdin_holds_nothing_more(fake: Callable[..., str]) -> None:
    isolate.probe(b"model", engine=fake(run="assert sys.stdin.buffer.read() == b''"))


def test_no_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(EdgeqError, match=r"no Python interpreter.*\[no-isolation\]") as caught:
        isolate.probe(b"model")
    assert "isolate=False" in caught.value.hints[0]


def test_no_process_to_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(EdgeqError, match="cannot start a child process: No such file"):
        isolate.probe(b"model")


def children() -> set[int]:
    """Processes whose parent is this one, dead ones that nobody waited for among them."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(rest[1]) == os.getpid():
            found.add(pid)
    return found


def test_no_child_stays_behind(fake: Callable[..., str]) -> None:
    before = children()
    with pytest.raises(EdgeqError):
        isolate.probe(b"model", engine=fake(load="time.sleep(600)"), timeout_s=1)
    assert children() <= before


def test_the_parent_survives_every_one_of_many_crashes(fake: Callable[..., str]) -> None:
    engine_name = fake(load="os.kill(os.getpid(), signal.SIGABRT)")
    for _ in range(10):
        with pytest.raises(EdgeqError, match="SIGABRT"):
            isolate.probe(b"model", engine=engine_name)


def test_signals_without_a_name() -> None:
    assert isolate._signal_name(int(signal.SIGSEGV)) == "SIGSEGV"
    assert isolate._signal_name(63) == "signal 63"


def test_the_parents_limits_stay_as_they_are(float_model: bytes) -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_AS)
    isolate.probe(float_model, memory_limit_bytes=2**36)
    after = resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_AS)
    assert before == after


def test_an_interrupt_ends_the_child(fake: Callable[..., str]) -> None:
    """Ctrl-C in the parent: KeyboardInterrupt there, and no child that goes on."""
    fake(load="time.sleep(600)")
    code = (
        "import os, signal, sys, threading\n"
        f"sys.path[:] = {sys.path!r}\n"
        "from edgeq_runtime import isolate\n"
        "threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "try:\n    isolate.probe(b'm', engine='fake', timeout_s=60)\n"
        "except KeyboardInterrupt:\n"
        "    try:\n        os.waitpid(-1, os.WNOHANG)\n"
        "    except ChildProcessError:\n        print('clean')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "clean\n", done.stderr

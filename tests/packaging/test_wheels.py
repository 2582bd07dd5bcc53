"""The released wheels, in clean environments with no checkout in sight: what a user has."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.checkout,
    pytest.mark.slow,
    pytest.mark.xdist_group("wheels"),
]
MAX_INSTALL_BYTES = 450_000_000
INSTALL_SECONDS = 600


@dataclass(frozen=True)
class Dists:
    """The four files of a release, in `folder`."""

    folder: Path
    sdk: Path
    runtime: Path
    sdk_source: Path
    runtime_source: Path


@dataclass(frozen=True)
class Environment:
    """A virtual environment and an empty folder to work in; both outside the checkout."""

    root: Path
    work: Path

    def run(self, *command: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's programs, with nothing of this process's Python in sight."""
        done = subprocess.run(
            [str(self.root / "bin" / command[0]), *command[1:]],
            cwd=self.work,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
        if ok:
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    @property
    def site_packages(self) -> Path:
        return next((self.root / "lib").glob("python3*/site-packages"))


def clean_environment() -> dict[str, str]:
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "EDGEQ_RELEASE", "EDGEQ_REQUIRE")
    return {name: value for name, value in os.environ.items() if name not in dropped}


def build(source: Path, out: Path) -> None:
    """A wheel and an sdist of `source`, each from the tree itself, as a release makes them."""
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--sdist"]
        + ["--outdir", str(out), str(source)],
        env={**os.environ, "EDGEQ_RELEASE": "1"},
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def environment(
    folder: Path, *requirements: str, find_links: Path, python: str = sys.executable
) -> Environment:
    work = folder / "work"
    work.mkdir()
    subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True, timeout=120)
    made = Environment(folder / "venv", work)
    made.run("pip", "install", "--quiet", "--find-links", str(find_links), *requirements)
    return made


@pytest.fixture(scope="module")
def dists(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Dists:
    out = tmp_path_factory.mktemp("dist")
    build(repository, out)
    build(repository / "runtimes" / "python", out)
    [sdk], [runtime] = out.glob("edgeq-*.whl"), out.glob("edgeq_runtime-*.whl")
    [sdk_source], [runtime_source] = out.glob("edgeq-*.tar.gz"), out.glob("edgeq_runtime-*.tar.gz")
    return Dists(out, sdk, runtime, sdk_source, runtime_source)


@pytest.fixture(scope="module")
def sdk(dists: Dists, tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Environment:
    """`pip install edgeq`, and digits beside it."""
    made = environment(tmp_path_factory.mktemp("sdk"), str(dists.sdk), find_links=dists.folder)
    for name in ("digits.onnx", "calib.npz", "eval.npz"):
        shutil.copy(repository / "examples" / "digits" / name, made.work)
    return made


@pytest.fixture(scope="module")
def bundle(sdk: Environment) -> Path:
    sdk.run(
        *("edgeq", "build", "digits.onnx", "--target", "rpi5", "--int8", "--data", "calib.npz"),
        *("--eval", "eval.npz", "--metric", "top1", "--gate", "top1>=-0.5pt"),
    )
    return sdk.work / "digits-rpi5-int8.edgeq"


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path) -> dict[str, list[str]]:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        message = Parser().parsestr(archive.read(name).decode())
    return {key: message.get_all(key, []) for key in ("Version", "Requires-Dist", "License-File")}


def test_the_wheels_hold_the_packages_and_no_generic_name(dists: Dists) -> None:
    sdk, runtime = names_in(dists.sdk), names_in(dists.runtime)
    assert {name.partition("/")[0].partition("-")[0] for name in sdk} == {
        "edgeq",
        "edgeq_converters",
    }
    assert {name.partition("/")[0].partition("-")[0] for name in runtime} == {"edgeq_runtime"}
    assert {"edgeq/py.typed", "edgeq_converters/py.typed"} <= sdk
    assert "edgeq_runtime/py.typed" in runtime


def test_the_wheel_holds_every_target_and_schema(dists: Dists, repository: Path) -> None:
    sdk = names_in(dists.sdk)
    targets = {f"edgeq/_targets/{path.name}" for path in (repository / "targets").glob("*.toml")}
    schemas = {
        f"edgeq/schemas/{path.name}" for path in (repository / "edgeq" / "schemas").glob("*.json")
    }
    assert targets and schemas
    assert targets | schemas <= sdk


def test_the_wheels_say_one_version_and_carry_the_licence(dists: Dists) -> None:
    sdk, runtime = metadata(dists.sdk), metadata(dists.runtime)
    [version] = sdk["Version"]
    assert runtime["Version"] == [version]
    assert f"edgeq-runtime=={version}" in sdk["Requires-Dist"]
    assert not [row for row in sdk["Requires-Dist"] if " @ " in row]
    assert sdk["License-File"] == runtime["License-File"] == ["LICENSE"]


def test_the_wheel_of_an_sdist_is_the_wheel(dists: Dists, tmp_path: Path) -> None:
    with tarfile.open(dists.sdk_source) as archive:
        archive.extractall(tmp_path, filter="data")
    [source] = tmp_path.iterdir()
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel"]
        + ["--outdir", str(tmp_path / "dist"), str(source)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = (tmp_path / "dist").glob("*.whl")
    assert names_in(wheel) == names_in(dists.sdk)
    assert metadata(wheel) == metadata(dists.sdk)


def test_a_default_install_is_at_most_450_mb(sdk: Environment) -> None:
    files = [path for path in sdk.site_packages.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    print(f"default install: {size / 1e6:.0f} MB in {len(files)} files")
    assert size <= MAX_INSTALL_BYTES


def test_the_installed_edgeq_builds_runs_and_verifies_digits(
    sdk: Environment, bundle: Path, repository: Path
) -> None:
    home = sdk.run("python", "-c", "import edgeq; print(edgeq.__file__)").stdout
    assert Path(home.strip()).is_relative_to(sdk.site_packages)
    assert str(repository) not in sdk.run("python", "-c", "import sys; print(sys.path)").stdout
    assert bundle.is_file()
    verified = json.loads(sdk.run("edgeq", "verify", str(bundle), "--json").stdout)
    assert verified["ok"] is True
    sdk.run("edgeq", "run", str(bundle), "--data", "calib.npz", "--out", "out.npz")
    assert (sdk.work / "out.npz").is_file()
    evaluated = sdk.run(
        "edgeq", "eval", str(bundle), "--eval", "eval.npz", "--metric", "top1", "--json"
    )
    assert json.loads(evaluated.stdout)["ok"] is True
    sdk.run("edgeq", "inspect", str(bundle))
    assert "rpi-zero2w" in sdk.run("edgeq", "targets").stdout


def test_the_bundle_does_not_depend_on_the_install(
    sdk: Environment, bundle: Path, repository: Path, tmp_path: Path
) -> None:
    """Built by the wheel in one folder and by the checkout in another: the same bytes."""
    for name in ("digits.onnx", "calib.npz", "eval.npz"):
        shutil.copy(repository / "examples" / "digits" / name, tmp_path)
    subprocess.run(
        [sys.executable, "-m", "edgeq.cli", "build", "digits.onnx", "--target", "rpi5", "--int8"]
        + ["--data", "calib.npz", "--eval", "eval.npz", "--metric", "top1"]
        + ["--gate", "top1>=-0.5pt"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=INSTALL_SECONDS,
    )
    versions = "import numpy, onnxruntime; print(numpy.__version__, onnxruntime.__version__)"
    here = subprocess.run(
        [sys.executable, "-c", versions], capture_output=True, text=True, check=True, timeout=60
    )
    if sdk.run("python", "-c", versions).stdout != here.stdout:
        pytest.skip("the two environments have other versions of numpy or the engine")
    assert (tmp_path / bundle.name).read_bytes() == bundle.read_bytes()


def test_the_runtime_alone_runs_the_bundle(
    dists: Dists, bundle: Path, tmp_path: Path, repository: Path
) -> None:
    device = environment(tmp_path, f"{dists.runtime}[onnxruntime]", find_links=dists.folder)
    assert "ModuleNotFoundError" in device.run("python", "-c", "import edgeq", ok=False).stderr
    shutil.copy(bundle, device.work)
    for name in ("app.py", "eval.npz"):
        shutil.copy(repository / "examples" / "digits" / name, device.work)
    said = device.run("python", "app.py", bundle.name, "eval.npz").stdout
    found = re.search(r"(\d+) of 640 images right", said)
    assert found, said
    assert int(found[1]) >= 630  # float has 634 right, the gate above allows 3 fewer; 1 spare


def python39() -> str | None:
    """A Python 3.9, the oldest the runtime is for: on the path, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    for found in (shutil.which("python3.9"), *pyenv.glob("versions/3.9.*/bin/python3.9")):
        if found and subprocess.run([found, "-c", ""], check=False, timeout=60).returncode == 0:
            return str(found)
    return None


def test_the_runtime_runs_the_bundle_on_python_39(
    dists: Dists, bundle: Path, tmp_path: Path, repository: Path
) -> None:
    python = python39()
    if python is None:
        pytest.skip("there is no Python 3.9 on this machine")
    device = environment(
        tmp_path, f"{dists.runtime}[onnxruntime]", find_links=dists.folder, python=python
    )
    shutil.copy(bundle, device.work)
    for name in ("app.py", "eval.npz"):
        shutil.copy(repository / "examples" / "digits" / name, device.work)
    assert "640 images right" in device.run("python", "app.py", bundle.name, "eval.npz").stdout
    code = (
        "import sys, edgeq_runtime; assert sys.version_info[:2] == (3, 9)\n"
        f"print(edgeq_runtime.verify({bundle.name!r}).passed)"
    )
    assert device.run("python", "-c", code).stdout == "True\n"


def test_without_an_engine_the_runtime_says_what_to_type(
    dists: Dists, bundle: Path, tmp_path: Path
) -> None:
    device = environment(tmp_path, str(dists.runtime), find_links=dists.folder)
    code = f"import edgeq_runtime; edgeq_runtime.load({str(bundle)!r})"
    error = device.run("python", "-c", code, ok=False).stderr
    assert "[missing-engine]" in error
    assert (
        'pip install "edgeq-runtime[onnxruntime]"'
        in device.run(
            "python",
            "-c",
            "import edgeq_runtime\n"
            f"try: edgeq_runtime.load({str(bundle)!r})\n"
            "except edgeq_runtime.EdgeqError as error: print(error.hints)",
        ).stdout
    )


@pytest.fixture(scope="module")
def clone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with one commit of this tree, whether or not the tree is committed."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    root = tmp_path_factory.mktemp("clone")
    for name in filter(None, listed.stdout.split("\0")):
        if (repository / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / name, root / name)
    git = ["git", "-C", str(root), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "tree"]):
        subprocess.run([*git, *command], check=True, timeout=120, capture_output=True)
    return root


@pytest.mark.parametrize("address", ["{path}", "git+{uri}"])
def test_a_checkout_and_a_git_address_install_both_dists(
    sdk: Environment, clone: Path, tmp_path: Path, address: str
) -> None:
    """`pip install .` and `pip install git+URL`: the runtime comes from the same tree."""
    report = tmp_path / "report.json"
    sdk.run(
        *("pip", "install", "--quiet", "--dry-run", "--ignore-installed"),
        *("--report", str(report)),
        address.format(path=clone, uri=clone.as_uri()),
    )
    installed = {row["metadata"]["name"]: row for row in json.loads(report.read_text())["install"]}
    assert {"edgeq", "edgeq-runtime"} <= set(installed)
    [wanted] = [
        row for row in installed["edgeq"]["metadata"]["requires_dist"] if "edgeq-runtime" in row
    ]
    assert re.fullmatch(r"edgeq-runtime ?@ ?file:///.+/runtimes/python", wanted)
    assert (
        installed["edgeq-runtime"]["metadata"]["version"]
        == installed["edgeq"]["metadata"]["version"]
    )


def test_the_tests_pass_against_the_installed_wheel(
    sdk: Environment, dists: Dists, repository: Path, tmp_path: Path
) -> None:
    """A copy of tests/ with no checkout beside it, so every import is the wheel's."""
    sdk.run("pip", "install", "--quiet", f"{dists.sdk}[dev]", "--find-links", str(dists.folder))
    for name in ("tests", "examples", "targets"):
        shutil.copytree(
            repository / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    project = (repository / "pyproject.toml").read_text()
    table = project.partition("[tool.pytest.ini_options]")[2].partition("\n[tool.")[0]
    kept = [line for line in table.splitlines() if not line.startswith("pythonpath")]
    (tmp_path / "pyproject.toml").write_text("\n".join(["[tool.pytest.ini_options]", *kept]))
    done = sdk.run(
        *("python", "-P", "-m", "pytest", "-q", "-n", "2", "--rootdir", str(tmp_path)),
        *("-c", str(tmp_path / "pyproject.toml"), "-m", "not slow and not checkout"),
        str(tmp_path / "tests"),
        ok=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    print(done.stdout.splitlines()[-1])


# -- the extras of DESIGN 8 -----------------------------------------------------------------------

RUN_FILES = """
import json, sys
import numpy as np
from edgeq_runtime import EdgeqError, engines, isolate

said = {}
for path in sys.argv[2:]:
    try:
        isolate.probe(path, engine=sys.argv[1])
        kernels = "builtin" if sys.argv[1] == "litert" else "auto"
        session = engines.get(sys.argv[1]).open_session(path, threads=1, resolver=kernels)
        feeds = {}
        for at, info in enumerate(session.inputs):
            shape = [size if isinstance(size, int) else 1 for size in info.shape]
            codes = np.random.RandomState(at).randint(-128, 128, shape)
            feeds[info.name] = codes.astype(info.dtype)
        [output] = session.run(feeds).values()
        said[path] = [session.version, output.ravel().tolist()]
    except EdgeqError as error:
        said[path] = str(error)
print(json.dumps(said))
"""


def outputs(python: Callable[..., str], engine: str, paths: list[Path]) -> dict[str, Any]:
    """File -> [engine's version, outputs], or the error."""
    said = json.loads(python("-c", RUN_FILES, engine, *map(str, paths)))
    return {Path(path).name: row for path, row in said.items()}


def here(*arguments: str) -> str:
    """Run this process's Python, as it imports."""
    path = os.pathsep.join(row for row in sys.path if row)
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=120
    ).stdout


@pytest.mark.shared
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="tflite-runtime ends with Python 3.11")
def test_tflite_runtime_runs_what_it_computes_rightly(
    dists: Dists, tmp_path: Path, shared: Path
) -> None:
    """2.14.0 for real: int8 as TFLite's own kernels have it in LiteRT (XNNPACK, which 2.14 does not
    use for int8, rounds otherwise), dynamic int8 refused, numpy 2 named."""
    data = shared / "data"
    right = [
        data / "vww_mobilenet" / "vww_96_int8.tflite",
        data / "kws_dscnn" / "kws_ref_model.tflite",
        data / "ic_resnet8" / "pretrainedResnet.tflite",
    ]
    dynamic = data / "kws_dscnn" / "kws_ref_model_float32.tflite"  # five CONV_2D of int8 weights
    device = environment(tmp_path, f"{dists.runtime}[tflite-runtime]", find_links=dists.folder)

    def python(*arguments: str) -> str:
        return device.run("python", *arguments).stdout

    got = outputs(python, "tflite-runtime", [*right, dynamic])
    want = outputs(here, "litert", right)
    for path in right:
        version, values = got[path.name]
        assert version == "2.14.0"
        wanted = want[path.name][1]
        if path.name.startswith("pretrained"):  # float32: seven layers of sums of 576 products
            assert max(abs(a - b) for a, b in zip(values, wanted, strict=True)) < 1e-5
        else:
            assert values == wanted
    assert got[dynamic.name] == (
        "tflite-runtime 2.14.0 cannot run dynamic int8 (CONV_2D, operator 0): it gives wrong "
        "values without an error [engine-cannot]"
    )
    device.run("pip", "install", "--quiet", "numpy>=2")
    said = outputs(python, "tflite-runtime", right[:1])[right[0].name]
    assert re.fullmatch(
        r"tflite-runtime is made for numpy 1, and this is numpy 2\S+ \[engine-needs-numpy1\]", said
    )


@pytest.mark.shared
def test_litert_is_enough_for_the_runtime(dists: Dists, tmp_path: Path, shared: Path) -> None:
    """The runtime with LiteRT alone, on the oldest Python: 2.1.0 there."""
    device = environment(
        tmp_path,
        f"{dists.runtime}[litert]",
        find_links=dists.folder,
        python=python39() or sys.executable,
    )
    path = shared / "data" / "vww_mobilenet" / "vww_96_int8.tflite"
    got = outputs(lambda *rows: device.run("python", *rows).stdout, "litert", [path])
    assert got[path.name][1] == outputs(here, "litert", [path])[path.name][1]


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="tflite-runtime ends with Python 3.11")
def test_the_extra_tflite_runtime_of_the_sdk(dists: Dists, tmp_path: Path) -> None:
    """edgeq with numpy 1, as tflite-runtime wants it, still builds an int8 model."""
    made = environment(tmp_path, f"{dists.sdk}[tflite-runtime]", find_links=dists.folder)
    code = (
        "import numpy, edgeq, tflite_runtime.interpreter; from edgeq_runtime import engines\n"
        "print(numpy.__version__.split('.')[0], engines.get('tflite-runtime').version())"
    )
    assert made.run("python", "-c", code).stdout == "1 2.14.0\n"


def test_the_extra_onnxruntime_tools(dists: Dists, tmp_path: Path) -> None:
    """The old names, and what they import without saying so."""
    made = environment(tmp_path, f"{dists.sdk}[onnxruntime-tools]", find_links=dists.folder)
    code = (
        "import importlib.metadata, six, sympy, onnxruntime_tools, edgeq\n"
        "print(importlib.metadata.version('onnxruntime-tools'))"
    )
    assert made.run("python", "-c", code).stdout.splitlines()[-1] == "1.7.0"  # a warning before

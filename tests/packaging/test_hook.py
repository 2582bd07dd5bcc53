"""hatch_build.py: where `edgeq-runtime` comes from in a checkout, for a release and in an sdist."""

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.checkout


@pytest.fixture(scope="module")
def hook_module(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", repository / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    runtime = tmp_path / "a checkout" / "runtimes" / "python"
    runtime.mkdir(parents=True)
    (runtime / "pyproject.toml").write_text("")
    return tmp_path / "a checkout"


def dependencies(hook_module: ModuleType, root: Path) -> list[str]:
    config = {"dependencies": ["numpy>=1.26", "click>=8.1"]}
    metadata: dict[str, Any] = {"version": "1.2.3"}
    hook_module.RuntimeDependency(str(root), config).update(metadata)
    return list(metadata["dependencies"])


def test_a_checkout_uses_the_folder_beside_it(
    hook_module: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEQ_RELEASE", raising=False)
    runtime = (checkout / "runtimes" / "python").as_uri()
    assert "%20" in runtime
    wanted = [f"edgeq-runtime @ {runtime}", "numpy>=1.26", "click>=8.1"]
    assert dependencies(hook_module, checkout) == wanted


def test_a_release_pins_the_same_version(
    hook_module: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEQ_RELEASE", "1")
    assert dependencies(hook_module, checkout)[0] == "edgeq-runtime==1.2.3"


def test_an_sdist_pins_the_same_version_without_being_told(
    hook_module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEQ_RELEASE", raising=False)
    assert dependencies(hook_module, tmp_path)[0] == "edgeq-runtime==1.2.3"


def test_the_default_install_is_what_the_design_lists(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    rows = project["tool"]["hatch"]["metadata"]["hooks"]["custom"]["dependencies"]
    names = [row.partition(">=")[0] for row in rows]
    litert = "ai-edge-litert"
    wanted = ["numpy", "onnx", "onnx-ir", "onnxruntime", "flatbuffers", litert, "click", "rich"]
    assert names == wanted
    markers = {row.partition(">=")[0]: row.partition(";")[2] for row in rows if ";" in row}
    assert list(markers) == [litert]
    assert "x86_64" in markers[litert] and "aarch64" in markers[litert]
    assert sorted(project["project"]["optional-dependencies"]) == [
        "dev",
        "images",
        "onnxruntime-tools",
        "tflite-runtime",
        "torch",
    ]


def test_the_runtime_needs_numpy_alone(repository: Path) -> None:
    project = tomllib.loads((repository / "runtimes/python/pyproject.toml").read_text())["project"]
    assert project["dependencies"] == ["numpy>=1.21"]
    assert sorted(project["optional-dependencies"]) == [
        "images",
        "litert",
        "onnxruntime",
        "tflite-runtime",
    ]
    assert project["requires-python"] == ">=3.9"


def test_both_dists_take_one_version_and_one_licence(repository: Path) -> None:
    runtime = repository / "runtimes" / "python"
    sdk = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["hatch"]["version"]
    own = tomllib.loads((runtime / "pyproject.toml").read_text())["tool"]["hatch"]["version"]
    assert repository / sdk["path"] == runtime / own["path"]
    assert (repository / "LICENSE").read_bytes() == (runtime / "LICENSE").read_bytes()


def test_the_changelog_has_the_version(repository: Path) -> None:
    from edgeq_runtime.version import __version__

    assert f"## {__version__}" in (repository / "CHANGELOG.md").read_text()

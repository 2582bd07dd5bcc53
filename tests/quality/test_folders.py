"""`--eval FOLDER`: class folders of images as labels."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeq.errors import EdgeqError
from edgeq.quality import open_evaluation
from edgeq_runtime.preprocess import InputSpec
from edgeq_runtime.tensors import TensorInfo

pytestmark = pytest.mark.images
INFO = TensorInfo("image", "float32", ("n", 3, 2, 2))
SPECS = {"image": InputSpec(scale=1.0)}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., str]:
    """`folder(cat=[0, 0, 2])`: flat images whose grey level is the class a model should see."""

    def write(**classes: Sequence[int]) -> str:
        from PIL import Image

        for name, levels in classes.items():
            (tmp_path / name).mkdir()
            for at, level in enumerate(levels):
                Image.new("RGB", (2, 2), (level,) * 3).save(tmp_path / name / f"{at}.png")
        return str(tmp_path)

    return write


def sees(classes: int) -> Callable[[dict[str, Any]], Mapping[str, np.ndarray]]:
    """A model that answers with the level it sees."""

    def run(feeds: dict[str, Any]) -> Mapping[str, np.ndarray]:
        levels = feeds["image"][:, 0, 0, 0].astype(int)
        return {"scores": np.eye(classes, dtype=np.float32)[levels]}

    return run


def top1(spec: str, classes: int, **options: Any) -> float:
    opened = open_evaluation(spec, metric="top1", inputs=[INFO], specs=SPECS, **options)
    return opened.score(sees(classes))[0].value


def test_the_label_is_the_folders_place_by_name(folder: Callable[..., str]) -> None:
    where = folder(dog=[1, 1, 0], cat=[0], emu=[2])
    opened = open_evaluation(where, metric="top1", inputs=[INFO], specs=SPECS)
    assert opened.samples == 5
    assert opened.metrics == ("top1",)
    assert opened.notes[-1].endswith("0 `cat`, 1 `dog`, 2 `emu`")
    assert opened.score(sees(3))[0].value == 0.8


def test_labels_give_the_models_order(folder: Callable[..., str]) -> None:
    where = folder(dog=[4, 4], cat=[1])
    labels = ("ant", "cat", "cow", "doe", "dog")
    assert top1(where, 5, labels=labels) == 1.0


def test_a_batch_of_two(folder: Callable[..., str]) -> None:
    where = folder(cat=[0, 0, 1], dog=[1, 1])
    info = TensorInfo("image", "float32", (2, 3, 2, 2))
    opened = open_evaluation(where, metric="top1", inputs=[info], specs=SPECS)
    assert opened.samples == 4
    assert opened.score(sees(2))[0].samples is not None
    assert opened.score(sees(2))[0].value == 0.75


def refused(spec: str, classes: int = 3, **options: Any) -> EdgeqError:
    with pytest.raises(EdgeqError) as caught:
        top1(spec, classes, **options)
    return caught.value


def test_fewer_folders_than_classes_are_refused(folder: Callable[..., str]) -> None:
    error = refused(folder(cat=[0], dog=[1]))
    assert error.slug == "bad-eval"
    assert "has 2 class folders, and output `scores` is [1, 3]" in error.message
    assert error.hints == ("name the classes in the model's order: `--labels labels.txt`",)


def test_a_folder_that_is_no_label_is_refused(folder: Callable[..., str]) -> None:
    error = refused(folder(dgo=[0]), labels=("cat", "dog"))
    assert "the class folder `dgo` is none of the 2 labels" in error.message
    assert error.hints == ("did you mean `dog`?",)


def test_numbers_that_sort_two_ways_are_refused(folder: Callable[..., str]) -> None:
    where = folder(**{"2": [2], "10": [10]})
    assert (
        "the class folders are numbers, and as text their order is 10, 2" in refused(where).message
    )
    assert top1(where, 12, labels=[str(at) for at in range(12)]) == 1.0


def test_a_flat_folder_has_no_labels(folder: Callable[..., str], tmp_path: Path) -> None:
    folder(cat=[0])
    error = refused(str(tmp_path / "cat"))
    assert "holds no class folders of images, so there are no labels" in error.message


def test_a_metric_is_needed(folder: Callable[..., str]) -> None:
    with pytest.raises(EdgeqError, match="needs a metric"):
        open_evaluation(folder(cat=[0]), inputs=[INFO], specs=SPECS)

"""Evaluations of both forms: what they score, how float and artifact pair up, what is refused."""
# ruff: noqa: E501 - tables of whole messages, one row each

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeq.errors import EdgeqError
from edgeq.quality import METRICS, Scores, compare, open_evaluation, paired_bootstrap, wilson
from edgeq_runtime.tensors import TensorInfo

X = TensorInfo("x", "float32", ("batch", 4))
Feeds = dict[str, NDArray[Any]]


def same(feeds: Feeds) -> Mapping[str, NDArray[Any]]:
    """A model whose scores are its inputs."""
    return {"scores": feeds["x"]}


@pytest.fixture
def labelled(tmp_path: Path) -> Callable[..., Path]:
    def write(x: NDArray[Any], y: NDArray[Any] | None, **more: NDArray[Any]) -> Path:
        arrays = {"x": x, **({} if y is None else {"y": y}), **more}
        np.savez(tmp_path / "eval.npz", **arrays)
        return tmp_path / "eval.npz"

    return write


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        Path("eval.py").write_text(text)
        return "eval.py"

    return write


def refused(
    slug: str, spec: Any, run: Any = same, info: TensorInfo = X, **options: Any
) -> EdgeqError:
    with pytest.raises(EdgeqError) as caught:
        open_evaluation(spec, inputs=[info], **options).score(run)
    assert caught.value.slug == slug, str(caught.value)
    return caught.value


def one_hot(classes: NDArray[Any], width: int = 4) -> NDArray[np.float32]:
    return np.eye(width, dtype=np.float32)[classes]


# -- the npz form --------------------------------------------------------------------------------


def test_top1_of_an_npz(labelled: Callable[..., Path]) -> None:
    truth = np.arange(20) % 4
    seen = truth.copy()
    seen[:3] = (seen[:3] + 1) % 4
    path = labelled(one_hot(seen), truth)
    evaluation = open_evaluation(path, metric="top1", inputs=[X])
    assert evaluation.description == "eval.npz, 20 samples"
    assert evaluation.metrics == ("top1",)
    (scores,) = evaluation.score(same)
    assert scores.value == 17 / 20
    assert scores.samples is not None
    assert scores.samples.tolist() == [0.0] * 3 + [1.0] * 17
    assert scores.interval == wilson(17, 20)


def test_one_evaluation_scores_float_and_artifact_in_pairs(labelled: Callable[..., Path]) -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(300, 4)).astype(np.float32)
    evaluation = open_evaluation(labelled(x, x.argmax(1)), metric="top1", inputs=[X])
    reference = evaluation.score(same)

    def rounded(feeds: Feeds) -> Mapping[str, NDArray[Any]]:
        return {"scores": np.round(feeds["x"])}

    artifact = evaluation.score(rounded)
    (quality,) = compare(reference, artifact)
    assert (quality.metric, quality.baseline, quality.n) == ("top1", 1.0, 300)
    assert quality.unit == "fraction"
    assert quality.difference == quality.value - 1.0
    difference = artifact[0].samples - reference[0].samples  # type: ignore[operator]
    assert quality.difference_interval == paired_bootstrap(difference, bound=1.0)
    assert quality.interval == wilson(round(quality.value * 300), 300)


@pytest.mark.parametrize("batch", [1, 3, 7])
def test_a_fixed_batch_scores_each_sample_once(labelled: Callable[..., Path], batch: int) -> None:
    truth = np.arange(20) % 4
    seen = truth.copy()
    seen[::5] = (seen[::5] + 1) % 4
    info = TensorInfo("x", "float32", (batch, 4))
    path = labelled(one_hot(seen), truth)
    evaluation = open_evaluation(path, metric="top1", inputs=[info])
    (scores,) = evaluation.score(same)
    kept = 20 - 20 % batch
    np.testing.assert_array_equal(scores.samples, (seen == truth)[:kept])
    assert evaluation.description == f"eval.npz, {kept} samples"
    assert bool(evaluation.notes) == (20 % batch != 0)


def test_arrays_in_memory_are_an_evaluation_too() -> None:
    spec = {"x": one_hot(np.array([0, 1])), "y": np.array([0, 0])}
    (scores,) = open_evaluation(spec, metric="top1", inputs=[X]).score(same)
    assert scores.value == 0.5


@pytest.mark.parametrize("dtype", ["int64", "uint8", "float32", "int32"])
def test_labels_of_any_number_type_and_one_hot_rows(dtype: str) -> None:
    classes = np.array([0, 3, 2])
    for y in (
        classes.astype(dtype),
        one_hot(classes).astype(dtype),
        classes[:, None].astype(dtype),
    ):
        spec = {"x": one_hot(np.array([0, 3, 1])), "y": y}
        (scores,) = open_evaluation(spec, metric="top1", inputs=[X]).score(same)
        assert scores.value == pytest.approx(2 / 3, abs=1e-15)


@pytest.mark.parametrize(
    ("metric", "value", "lower"),
    [("mae", 1.5, True), ("mse", 3.5, True), ("cosine", None, False)],
)
def test_metrics_against_an_array(metric: str, value: float | None, lower: bool) -> None:
    x = np.array([[1, 2, 3, 4], [0, 0, 0, 1]], np.float32)
    y = x + np.array([[0, 1, 2, 3], [3, 2, 1, 0]], np.float32)
    (scores,) = open_evaluation({"x": x, "y": y}, metric=metric, inputs=[X]).score(same)
    if value is None:
        rows = [
            a @ b / np.sqrt((a @ a) * (b @ b))
            for a, b in zip(x.astype(float), y.astype(float), strict=True)
        ]
        value = float(np.mean(rows))
    assert scores.value == pytest.approx(value, abs=1e-12)  # sums of 8 small integers in float64
    assert scores.lower_is_better is lower
    (quality,) = compare(None, (scores,))
    assert (quality.baseline, quality.difference, quality.difference_interval) == (None, None, None)
    assert quality.interval is not None
    assert quality.interval[0] <= scores.value <= quality.interval[1]


@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_top1_is_argmax_and_top5_holds_it(classes: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    row = generator.integers(0, 4, classes).astype(np.float32)  # ties are likely
    label = np.asarray(generator.integers(0, classes))
    top1 = METRICS["top1"].score(row, label, "here")
    assert top1 == float(np.argmax(row) == label)
    if classes > 5:
        order = np.argsort(-row, kind="stable")[:5]
        assert METRICS["top5"].score(row, label, "here") == float(label in order)


@pytest.mark.parametrize(
    ("x", "y", "metric", "slug", "message"),
    [
        (np.ones((3, 4)), None, "top1", "bad-eval", "has no array `y` with the labels"),
        (np.ones((3, 4)), np.zeros(3), None, "needs-metric", "eval.npz needs a metric"),
        (np.ones((3, 4)), np.zeros(3), "top2", "unknown-metric", "there is no metric `top2`"),
        (np.ones((3, 4)), np.zeros(2), "top1", "bad-eval", "has 3 samples, and `y` has 2"),
        (np.ones((3, 4)), np.float32(2), "top1", "bad-eval", "has 3 samples, and `y` has one number"),
        (np.ones((3, 4)), np.full(3, 4), "top1", "bad-eval", "sample 0: the label 4 is not a class of 0..3"),
        (np.ones((3, 4)), np.full(3, -1), "top1", "bad-eval", "the label -1 is not a class of 0..3"),
        (np.ones((3, 4)), np.full(3, 0.5), "top1", "bad-eval", "the label 0.5 is not a class"),
        (np.ones((3, 4)), np.ones((3, 2)), "top1", "bad-eval", "the label is float64 [2], not one class"),
        (np.ones((3, 4)), np.zeros(3), "top5", "bad-eval", "top5 needs one row of more than 5 scores, got float32 [4]"),
        (np.ones((3, 4)), np.ones((3, 5)), "mae", "bad-eval", "the output is float32 [4] and `y` is float64 [5]"),
        (np.ones((3, 4)), np.array(["a"] * 3), "top1", "bad-eval", "the label is <U1 []"),
        (np.ones((3, 5)), np.zeros(3), "top1", "data-mismatch", "input `x` wants float32 [samples, 4]"),
    ],
)  # fmt: skip
def test_a_misfit_is_named(
    labelled: Callable[..., Path],
    x: NDArray[Any], y: NDArray[Any] | None, metric: str | None, slug: str, message: str,
) -> None:  # fmt: skip
    assert message in refused(slug, labelled(x, y), metric=metric).message


def test_hints_of_the_npz_form(labelled: Callable[..., Path]) -> None:
    path = labelled(np.ones((3, 4)), np.zeros(3))
    assert refused("unknown-metric", path, metric="cosin").hints == ("did you mean `cosine`?",)
    assert refused("needs-metric", path).hints[0] == "--metric top1"


def test_outputs_that_are_no_answer(labelled: Callable[..., Path]) -> None:
    path = labelled(np.ones((3, 4)), np.zeros(3))
    error = refused("bad-eval", path, lambda feeds: {"o": np.full((1, 4), np.nan)}, metric="top1")
    assert error.message == f"{path}: sample 0: the output is not finite"
    info = TensorInfo("x", "float32", (3, 4))
    error = refused("bad-eval", path, lambda feeds: {"o": np.ones((2, 4))}, info, metric="top1")
    assert error.message.endswith("an output of shape [2, 4] for a batch of 3")
    error = refused("bad-eval", path, lambda feeds: {"o": np.ones((1, 2, 2))}, metric="top1")
    assert "top1 needs one row of more than 1 scores, got float64 [2, 2]" in error.message


def test_an_input_called_y_needs_a_function(labelled: Callable[..., Path]) -> None:
    path = labelled(np.ones((3, 4)), np.zeros(3))
    error = refused("bad-eval", path, info=TensorInfo("y", "float32", (None, 4)), metric="top1")
    assert "the model has an input `y`" in error.message


@pytest.mark.parametrize("spec", ["no/such.npz", __file__, 3])
def test_what_is_no_evaluation(spec: Any) -> None:
    assert refused("bad-eval", spec, metric="top1").slug == "bad-eval"


# -- the function form ---------------------------------------------------------------------------

HEAD = "import numpy as np\nX = np.eye(4, dtype=np.float32)\n"


@pytest.mark.parametrize(
    ("body", "names", "values", "n"),
    [
        ("return float(run({'x': X})['scores'].mean())", ["top1"], [0.25], None),
        ("return {'a': 1, 'b': np.float32(0.5)}", ["a", "b"], [1.0, 0.5], None),
        ("return run({'x': X})['scores'].argmax(1) == np.array([0, 1, 2, 0])", ["top1"], [0.75], 4),
        ("return [1.0, 2.0, 6.0]", ["top1"], [3.0], 3),
        ("return {'iou': np.array([0.5, 0.7]), 'count': 2}", ["iou", "count"], [0.6, 2.0], 2),
    ],
)
def test_what_a_function_may_return(
    code: Callable[[str], str], body: str, names: list[str], values: list[float], n: int | None
) -> None:
    spec = code(f"{HEAD}def top1(run):\n    {body}\n") + ":top1"
    scores = open_evaluation(spec, inputs=[X]).score(same)
    assert [item.metric for item in scores] == names
    assert [item.value for item in scores] == pytest.approx(values, abs=1e-7)
    qualities = compare(scores, scores)
    assert qualities[0].n == n
    assert (qualities[0].interval is None) == (n is None)
    assert all(quality.difference == 0 for quality in qualities)


def test_zeros_and_ones_are_a_rate_and_other_scores_a_mean(code: Callable[[str], str]) -> None:
    spec = code("def f(run):\n    return {'hit': [1, 0, 1], 'iou': [1, 0, 0.5]}\n") + ":f"
    hit, iou = open_evaluation(spec, inputs=[X]).score(same)
    assert hit.is_rate
    assert hit.interval == wilson(2, 3)
    assert not iou.is_rate


def test_lower_is_better_is_an_attribute(code: Callable[[str], str]) -> None:
    spec = code("def wer(run):\n    return 0.2\nwer.lower_is_better = True\n") + ":wer"
    (scores,) = open_evaluation(spec, inputs=[X]).score(same)
    assert scores.lower_is_better
    assert compare(None, (scores,))[0].to_json()["lower_is_better"] is True


def test_metric_names_a_single_number_or_picks_one_of_several() -> None:
    evaluation = open_evaluation(lambda run: 0.5, metric="iou", inputs=[X])
    assert evaluation.score(same)[0].metric == "iou"
    evaluation = open_evaluation(lambda run: {"a": 1.0, "b": 2.0}, metric="b", inputs=[X])
    assert [(s.metric, s.value) for s in evaluation.score(same)] == [("b", 2.0)]
    error = refused("unknown-metric", lambda run: {"map50": 1.0}, metric="map5")
    assert error.message.endswith("returns no metric `map5`")
    assert error.hints == ("did you mean `map50`?",)


@pytest.mark.parametrize(
    ("body", "slug", "message"),
    [
        ("return None", "bad-eval", "eval.py:top1 returned NoneType for `top1`, not a number or an array of scores"),
        ("return 'good'", "bad-eval", "eval.py:top1 returned str for `top1`"),
        ("return float('nan')", "bad-eval", "eval.py:top1: `top1` is not finite"),
        ("return []", "bad-eval", "eval.py:top1 returned list of shape [0] for `top1`"),
        ("return X", "bad-eval", "eval.py:top1 returned ndarray of shape [4, 4] for `top1`"),
        ("return [[1], [1, 2]]", "bad-eval", "eval.py:top1 returned list for `top1`"),
        ("return {}", "bad-eval", "eval.py:top1 returned no metric"),
        ("return labels", "bad-function", "eval.py:4: NameError: name 'labels' is not defined"),
        ("return run()", "bad-function", "eval.py:4: TypeError: "),
        ("return run({'z': X})['scores']", "bad-function", "eval.py:4: KeyError: 'x'"),
    ],
)  # fmt: skip
def test_a_functions_mistake_is_told(
    code: Callable[[str], str], body: str, slug: str, message: str
) -> None:
    spec = code(f"{HEAD}def top1(run):\n    {body}\n") + ":top1"
    assert refused(slug, spec).message.startswith(message)


def test_an_engines_own_error_passes_through() -> None:
    def run(feeds: Feeds) -> Mapping[str, NDArray[Any]]:
        raise EdgeqError("bad-input", "input `x` is missing")

    refused("bad-input", lambda run: run({}), run)


# -- comparing -----------------------------------------------------------------------------------


def scores_of(values: list[float], metric: str = "m", is_rate: bool = False) -> Scores:
    array = np.array(values, np.float64)
    return Scores(metric, float(array.mean()), array, is_rate, False)


def test_scores_that_do_not_pair_up() -> None:
    with pytest.raises(
        EdgeqError, match=r"`m` has 3 scores for the float model and 2 for the art.*\[bad-eval\]"
    ):
        compare([scores_of([1, 2, 3])], [scores_of([1, 2])])
    with pytest.raises(EdgeqError, match=r"gave `m` for the float model and `k` for the artifact"):
        compare([scores_of([1, 2])], [scores_of([1, 2], "k")])


def test_a_quality_as_json() -> None:
    (quality,) = compare(
        [scores_of([1, 1, 1, 0], "top1", True)], [scores_of([1, 1, 0, 0], "top1", True)]
    )
    document = quality.to_json()
    assert list(document) == [
        "metric", "value", "baseline", "difference", "n", "confidence", "interval",
        "difference_interval", "lower_is_better", "unit",
    ]  # fmt: skip
    assert (document["value"], document["baseline"], document["difference"]) == (0.5, 0.75, -0.25)
    assert document["interval"] == list(wilson(2, 4))
    assert isinstance(document["difference_interval"], list)


# -- intervals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson_as_published(k: int, n: int, low: float, high: float) -> None:
    """81 of 263 is Newcombe's example (Stat. Med. 17, 1998, table I, method 3)."""
    assert wilson(k, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_rate_and_is_symmetric(case: tuple[int, int]) -> None:
    k, n = case
    low, high = wilson(k, n)
    assert 0 <= low <= k / n <= high <= 1
    mirrored = wilson(n - k, n)
    assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]), abs=1e-12)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=40), st.integers(0, 5))
def test_the_bootstrap_holds_the_mean_and_repeats(values: list[float], seed: int) -> None:
    array = np.array(values)
    low, high = paired_bootstrap(array, seed=seed)
    assert low <= array.mean() <= high
    assert (low, high) == paired_bootstrap(array, seed=seed)


def test_no_difference_at_all_is_exact_for_scores_and_not_for_rates() -> None:
    assert paired_bootstrap(np.zeros(600)) == (0.0, 0.0)
    low, high = paired_bootstrap(np.zeros(600), bound=1.0)
    # a rate that never differed on 600 samples may still differ on one of 200 (rule of three)
    assert -0.006 < low < 0 < high < 0.006


def test_the_bootstrap_takes_many_samples_in_little_memory() -> None:
    values = np.random.default_rng(0).normal(size=20_000)
    low, high = paired_bootstrap(values)
    # two standard errors of the mean to either side, and a tenth for the resampling
    assert (high - low) == pytest.approx(2 * 1.96 / np.sqrt(20_000), rel=0.1)


def test_lower_is_better_of_some_metrics_of_a_function() -> None:
    def score(run: Callable[..., Any]) -> Mapping[str, float]:
        return {"accuracy": 0.9, "loss": 0.3, "mae": 0.1, "top1": 0.9}

    score.lower_is_better = ("loss", "top1")  # type: ignore[attr-defined]
    found = open_evaluation(score, inputs=[X]).score(same)
    assert [item.lower_is_better for item in found] == [False, True, True, False]

"""`--eval` of either form: an .npz with inputs and `y`, or the user's `function(run)`.

The same evaluation scores the float model and the artifact, sample by sample, so that the two are
paired and their difference has an interval of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeq.data.feeds import Source, Specs, short
from edgeq.data.functions import calling, is_function_spec, name_of, open_function
from edgeq.data.npy import StoredRows, open_npz
from edgeq.data.sources import open_source
from edgeq.errors import EdgeqError, did_you_mean
from edgeq.quality.intervals import Interval, paired_bootstrap, wilson
from edgeq.quality.metrics import METRICS, Metric, Quality
from edgeq_runtime.tensors import TensorInfo

Run = Callable[[dict[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
EvalSpec = str | Path | Mapping[str, NDArray[Any]] | Callable[[Run], Any]
LABELS = "y"


@dataclass(frozen=True)
class Scores:
    """One metric of one run of an evaluation: its value, and per-sample scores if there are."""

    metric: str
    value: float
    samples: NDArray[np.float64] | None
    is_rate: bool
    lower_is_better: bool

    @property
    def interval(self) -> Interval | None:
        """95 % interval of the value: Wilson for rates, a bootstrap for other means."""
        if self.samples is None or len(self.samples) < 2:
            return None
        if self.is_rate:
            return wilson(float(self.samples.sum()), len(self.samples))
        low, high = paired_bootstrap(self.samples - self.value)
        return self.value + low, self.value + high


@dataclass(frozen=True)
class Evaluation:
    """An opened evaluation: `score(run)` may be called for the float model and for artifacts.

    `metrics` are the names it will give, and `samples` how many it scores; None where only the
    user's function knows.
    """

    description: str
    metrics: tuple[str, ...] | None
    notes: tuple[str, ...]
    score: Callable[[Run], tuple[Scores, ...]]
    samples: int | None = None


def open_evaluation(
    spec: EvalSpec,
    *,
    metric: str | None = None,
    inputs: Sequence[TensorInfo],
    specs: Specs | None = None,
    labels: Sequence[str] | None = None,
) -> Evaluation:
    """Open `--eval`: an .npz or a dict with the inputs and `y` (then `metric` says how to compare
    them), a folder of images in class folders, `file.py:function`, or a function.

    The label of a class folder is its name's place in `labels`, where there are any, else among
    the folders by name; then there must be as many as the model has classes.

    A function is called as `function(run)`, where `run({name: array})` gives `{name: array}`, and
    returns a float, `{metric: float}` or an array of scores, one a sample; larger is better unless
    it has `lower_is_better = True`, or names the metrics of which that is true:
    `lower_is_better = ("loss",)`.
    """
    if isinstance(spec, str | Path) and is_function_spec(str(spec)):
        return _of_function(open_function(str(spec)), str(spec), metric)
    if isinstance(spec, str | Path) and Path(spec).is_dir():
        return _of_folder(str(spec), metric, inputs, specs or {}, labels)
    if isinstance(spec, str | Path):
        return _of_npz(Path(spec), metric, inputs, specs or {})
    if isinstance(spec, Mapping):
        truth = np.asarray(spec[LABELS]) if LABELS in spec else None
        return _of_arrays(spec, truth, "the arrays given", metric, inputs, specs or {})
    if callable(spec):
        return _of_function(spec, name_of(spec), metric)
    raise EdgeqError(
        "bad-eval", f"an evaluation is a path, arrays or a function, not {type(spec).__name__}"
    )


def compare(reference: Sequence[Scores] | None, artifact: Sequence[Scores]) -> tuple[Quality, ...]:
    """The artifact's scores beside the float model's, paired by metric and sample.

    Scores that do not pair up (another metric, another number of samples) are `[bad-eval]`.
    """
    if reference is None:
        return tuple(_quality(scores, None) for scores in artifact)
    named = {scores.metric: scores for scores in reference}
    if set(named) != {scores.metric for scores in artifact}:
        raise EdgeqError(
            "bad-eval",
            f"the evaluation gave {_names(reference)} for the float model and {_names(artifact)}"
            " for the artifact",
        )
    return tuple(_quality(scores, named[scores.metric]) for scores in artifact)


def _names(scores: Sequence[Scores]) -> str:
    return ", ".join(f"`{item.metric}`" for item in scores)


def _quality(scores: Scores, reference: Scores | None) -> Quality:
    n = None if scores.samples is None else len(scores.samples)
    return Quality(
        metric=scores.metric,
        value=scores.value,
        baseline=None if reference is None else reference.value,
        n=n,
        interval=scores.interval,
        difference_interval=None if reference is None else _difference(reference, scores),
        lower_is_better=scores.lower_is_better,
        unit="fraction" if scores.is_rate else None,
    )


def _difference(reference: Scores, artifact: Scores) -> Interval | None:
    have, want = artifact.samples, reference.samples
    if have is None or want is None:
        return None
    if len(have) != len(want):
        raise EdgeqError(
            "bad-eval",
            f"`{artifact.metric}` has {len(want)} scores for the float model and {len(have)} for"
            " the artifact: they do not pair up",
        )
    if len(have) < 2:
        return None
    both_rates = artifact.is_rate and reference.is_rate
    return paired_bootstrap(have - want, bound=1.0 if both_rates else None)


# -- an .npz with labels ------------------------------------------------------------------------


def _of_npz(
    path: Path, metric: str | None, inputs: Sequence[TensorInfo], specs: Specs
) -> Evaluation:
    if path.suffix.lower() != ".npz" or not path.is_file():
        kinds = "an .npz, a folder of images nor file.py:function"
        problem = f"is neither {kinds}" if path.exists() else "does not exist"
        raise EdgeqError(
            "bad-eval", f"{path} {problem}", "--eval eval.npz --metric top1", "--eval eval.py:top1"
        )
    arrays = open_npz(path)
    labels: StoredRows | None = arrays.get(LABELS)
    return _of_arrays(
        str(path), None if labels is None else labels.whole(), str(path), metric, inputs, specs
    )


def _of_arrays(
    spec: str | Mapping[str, NDArray[Any]],
    labels: NDArray[Any] | None,
    where: str,
    metric: str | None,
    inputs: Sequence[TensorInfo],
    specs: Specs,
) -> Evaluation:
    if any(info.name == LABELS for info in inputs):
        raise EdgeqError(
            "bad-eval",
            f"the model has an input `{LABELS}`, which {where} needs for labels",
            "--eval eval.py:function",
        )
    if labels is None:
        raise EdgeqError("bad-eval", f"{where} has no array `{LABELS}` with the labels")
    row = _metric(metric, where)
    source = open_source(spec, inputs=inputs, specs=specs, unused=(LABELS,))
    samples = _sample_count(source, labels, where)

    def score(run: Run) -> tuple[Scores, ...]:
        values = np.array(_score_all(source, labels, row, run, where), np.float64)
        assert len(values) == samples
        return (Scores(row.name, float(values.mean()), values, row.is_rate, row.lower_is_better),)

    described = f"{short(where)}, {samples} samples"
    return Evaluation(described, (row.name,), source.notes, score, samples)


# -- a folder of images in class folders --------------------------------------------------------


def _of_folder(
    where: str,
    metric: str | None,
    inputs: Sequence[TensorInfo],
    specs: Specs,
    labels: Sequence[str] | None,
) -> Evaluation:
    row = _metric(metric, where)
    source = open_source(where, inputs=inputs, specs=specs)
    if not source.classes:
        raise EdgeqError(
            "bad-eval",
            f"{where} holds no class folders of images, so there are no labels",
            f"put the images of each class into a folder of its own: {where}/CLASS/",
        )
    places = _class_places(source.classes, labels, where)
    wanted = np.array([places[label] for label in source.labels])
    classes = len(source.classes) if labels is None else None

    def score(run: Run) -> tuple[Scores, ...]:
        def checked(feed: dict[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
            outputs = run(feed)
            _check_classes(outputs, source.group, classes, where)
            return outputs

        values = np.array(_score_all(source, wanted, row, checked, where), np.float64)
        return (Scores(row.name, float(values.mean()), values, row.is_rate, row.lower_is_better),)

    named = [f"{place} `{name}`" for name, place in zip(source.classes, places, strict=True)]
    told = ", ".join([*named[:_SHOWN], *(["..."] if len(named) > _SHOWN else [])])
    described = f"{short(where)}, {len(wanted)} samples"
    notes = (*source.notes, f"labels of {short(where)}: {told}")
    return Evaluation(described, (row.name,), notes, score, len(wanted))


_SHOWN = 5


def _class_places(
    classes: Sequence[str], labels: Sequence[str] | None, where: str
) -> tuple[int, ...]:
    """The model's class of each class folder."""
    if labels is None:
        if all(map(str.isdecimal, classes)) and sorted(classes, key=int) != list(classes):
            raise EdgeqError(
                "bad-eval",
                f"{where}: the class folders are numbers, and as text their order is"
                f" {', '.join(classes[:3])} ...",
                "name the classes in the model's order: `--labels labels.txt`",
            )
        return tuple(range(len(classes)))
    strange = [name for name in classes if name not in labels]
    if strange:
        raise EdgeqError(
            "bad-eval",
            f"{where}: the class folder `{strange[0]}` is none of the {len(labels)} labels",
            *did_you_mean(strange[0], labels),
        )
    return tuple(labels.index(name) for name in classes)


def _check_classes(
    outputs: Mapping[str, NDArray[Any]], group: int, classes: int | None, where: str
) -> None:
    """Places among folders are the model's classes only where there is a folder for each."""
    name, scores = next((name, np.asarray(array)) for name, array in outputs.items())
    if classes is not None and scores.size != group * classes:
        raise EdgeqError(
            "bad-eval",
            f"{where} has {classes} class folders, and output `{name}` is {list(scores.shape)}",
            "name the classes in the model's order: `--labels labels.txt`",
        )


# -- an .npz with labels, the parts ---------------------------------------------------------------


def _metric(metric: str | None, where: str) -> Metric:
    if metric is None:
        raise EdgeqError(
            "needs-metric",
            f"{where} needs a metric",
            "--metric top1",
            "one of: " + ", ".join(METRICS),
        )
    if metric not in METRICS:
        raise EdgeqError(
            "unknown-metric", f"there is no metric `{metric}`", *did_you_mean(metric, METRICS)
        )
    return METRICS[metric]


def _sample_count(source: Source, labels: NDArray[Any], where: str) -> int:
    """The samples that are scored: as many as there are labels, less what fills no batch."""
    assert source.count is not None
    total = source.count * source.group + source.skipped
    if labels.ndim == 0 or labels.shape[0] != total:
        have = labels.shape[0] if labels.ndim else "one number"
        raise EdgeqError("bad-eval", f"{where} has {total} samples, and `{LABELS}` has {have}")
    return source.count * source.group


def _score_all(
    source: Source, labels: NDArray[Any], metric: Metric, run: Run, where: str
) -> list[float]:
    scores: list[float] = []
    group = source.group
    for index, feed in enumerate(source):
        outputs = run(feed)
        output = next(iter(outputs.values()))
        for lane in range(group):
            sample = index * group + lane
            place = f"{where}: sample {sample}"
            row = _row(np.asarray(output), lane, group, place)
            scores.append(metric.score(row, np.asarray(labels[sample]), place))
    return scores


def _row(output: NDArray[Any], lane: int, group: int, place: str) -> NDArray[Any]:
    """One sample's part of an output [group, ...]; NaN and Inf are no answer."""
    if output.ndim and output.shape[0] == group:
        output = output[lane]
    elif group > 1:
        raise EdgeqError(
            "bad-eval", f"{place}: an output of shape {list(output.shape)} for a batch of {group}"
        )
    if output.dtype.kind == "f" and not np.isfinite(output).all():
        raise EdgeqError("bad-eval", f"{place}: the output is not finite")
    return output


# -- the user's function ------------------------------------------------------------------------


def _of_function(function: Callable[[Run], Any], where: str, metric: str | None) -> Evaluation:
    def score(run: Run) -> tuple[Scores, ...]:
        with calling(function):
            result = function(run)
            lower = getattr(function, "lower_is_better", False)
        name = metric or getattr(function, "__name__", "score")
        named = dict(result) if isinstance(result, Mapping) else {name: result}
        if isinstance(result, Mapping) and metric is not None:
            if metric not in named:
                raise EdgeqError(
                    "unknown-metric",
                    f"{where} returns no metric `{metric}`",
                    *did_you_mean(metric, map(str, named)),
                )
            named = {metric: named[metric]}
        if not named:
            raise EdgeqError("bad-eval", f"{where} returned no metric")
        return tuple(
            _returned(str(key), value, _is_lower(lower, str(key)), where)
            for key, value in named.items()
        )

    return Evaluation(short(where), None, (), score)


def _is_lower(declared: object, name: str) -> bool:
    """Whether a function's `lower_is_better`, a truth or names, says so of the metric `name`.

    A name of METRICS means here what it means there.
    """
    if name in METRICS:
        return METRICS[name].lower_is_better
    if isinstance(declared, Collection) and not isinstance(declared, str):
        return name in declared
    return declared == name if isinstance(declared, str) else bool(declared)


def _returned(name: str, value: object, lower_is_better: bool, where: str) -> Scores:
    """One metric of what a function returned: a number, or an array of scores."""
    try:
        array = np.asarray(value)
    except ValueError:  # a ragged list
        array = np.asarray(None)
    if array.dtype.kind not in "biuf" or array.ndim > 1 or array.size == 0:
        raise EdgeqError(
            "bad-eval",
            f"{where} returned {_say(value, array)} for `{name}`, not a number or an array of"
            " scores",
        )
    scores = array.astype(np.float64)
    if not np.isfinite(scores).all():
        raise EdgeqError("bad-eval", f"{where}: `{name}` is not finite")
    if array.ndim == 0:
        return Scores(name, float(scores), None, False, lower_is_better)
    is_rate = bool(np.isin(scores, (0.0, 1.0)).all())
    return Scores(name, float(scores.mean()), scores, is_rate, lower_is_better)


def _say(value: object, array: NDArray[Any]) -> str:
    kind = type(value).__name__
    return kind if array.ndim == 0 else f"{kind} of shape {list(array.shape)}"

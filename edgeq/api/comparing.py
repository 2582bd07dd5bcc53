"""`compare`: two artifacts of any format on the same inputs, outputs and inner tensors alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeq import registry
from edgeq.api import models
from edgeq.api.border import as_float
from edgeq.api.pairing import Pairs, pair_inputs, pair_outputs
from edgeq.api.progress import Stage, on_samples
from edgeq.api.samples import SEED, SYNTHETIC
from edgeq.api.use import Opened, opened
from edgeq.errors import EdgeqError
from edgeq.report.comparison import Compared, PairDifference, Side
from edgeq.report.events import Note, Progress, StageProgress, Warned, silent

if TYPE_CHECKING:
    import numpy as np

    from edgeq.data import Source
    from edgeq.quant.fidelity import Held, Sums

    Arrays = Mapping[str, np.ndarray[Any, Any]]

GROUP_BYTES = 64_000_000
"""Inner tensors are shown in groups of about this size a side: what one run then holds of them."""

UNKNOWN_BYTES = 1_000_000
"""What a tensor is taken for where no shape inside the file is known."""


@dataclass
class Judged:
    """One pair of tensors while samples stream past."""

    a: Held
    b: Held
    sums: Sums
    mismatch: str | None = None
    unknown_axes: bool = False

    def add(self, reference: np.ndarray[Any, Any], candidate: np.ndarray[Any, Any]) -> None:
        """Take in one sample, as the engines handed it out."""
        one, two = self.a.values(reference), self.b.values(candidate)
        if self.unknown_axes:
            one, two = _aligned(one, two)
        if self.mismatch is None:
            self.mismatch = _mismatch(one, two)
        if self.mismatch is None:
            self.sums.add(one, two)

    def result(self) -> PairDifference:
        found = self.sums.result()
        steps = [held.scale for held in (self.a, self.b) if held.scale is not None]
        step = max(steps, default=None)
        same_grid = len(steps) == 2 and steps[0] == steps[1]
        return PairDifference(
            a=self.a.name,
            b=self.b.name,
            compared_as="codes" if same_grid else "values" if self.sums.is_float else "elements",
            equal_share=found.equal_share,
            sqnr_db=found.sqnr_db,
            max_abs_error=found.max_abs_error,
            max_lsb=found.max_lsb(step, same_grid=same_grid),
            step=step,
        )


@dataclass
class Work:
    """What the two halves of a comparison share."""

    a: Opened
    b: Opened
    names: Mapping[str, str]
    source: Source
    progress: Progress
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    not_compared: list[tuple[str, str]] = field(default_factory=list)
    samples: int = 0

    def feeds(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """The same arrays for A and for B, each under its own names."""
        for sample in self.source:
            yield dict(sample), {self.names[name]: array for name, array in sample.items()}

    @property
    def all_notes(self) -> tuple[str, ...]:
        """What was done to either file, by its name, then to both."""
        told = [f"{model.name}: {note}" for model in (self.a, self.b) for note in model.notes]
        return tuple(dict.fromkeys((*told, *self.notes)))

    @property
    def all_warnings(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.a.warnings, *self.b.warnings, *self.warnings)))

    def tell(self) -> None:
        for note in self.all_notes:
            self.progress(Note(note))
        for warning in self.all_warnings:
            self.progress(Warned(warning))


def compare(
    a: str | Path,
    b: str | Path,
    *,
    data: Any = None,
    samples: int | None = None,
    input: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Compared:
    """Run both on `data`, else on seeded inputs in the ranges that the bundles were calibrated in.

    A is the reference. Raises EdgeqError: what opening either raises, [not-comparable] where the
    inputs differ or no output has a partner.
    """
    with _named(a, input) as one, _named(b, input) as two:
        pairs = pair_inputs(one, two)
        source = _source(pairs, one, two, data, samples)
        names = {info.name: other.name for info, other in pairs.matched}
        work = Work(one, two, names, source, progress, [*pairs.notes, *source.notes])
        viewers = [_viewer(model) for model in (one, two)]
        outputs = _compare_outputs(work, viewers)
        tensors = _compare_inside(work, viewers)
    work.tell()
    return Compared(
        a=_side(one),
        b=_side(two),
        outputs=_sorted(outputs),
        tensors=_sorted(tensors),
        not_compared=tuple(work.not_compared),
        samples=work.samples,
        source=models.text_name(Path(data)) if isinstance(data, str | Path) else source.description,
        synthetic=data is None,
        warnings=work.all_warnings,
        notes=work.all_notes,
    )


@contextmanager
def _named(path: str | Path, tables: Mapping[str, Any] | None) -> Iterator[Opened]:
    """`opened`, where every error says which of the two files it is about."""
    name = models.text_name(Path(path))
    with ExitStack() as stack:
        try:
            model = stack.enter_context(opened(path, tables, exact=True))
        except EdgeqError as error:
            if name in error.message:
                raise
            raise EdgeqError(error.slug, f"`{name}`: {error.message}", *error.hints) from error
        yield replace(model, name=name)


def _side(model: Opened) -> Side:
    return Side(
        file=model.name,
        format=model.format,
        precision=model.precision,
        size_bytes=model.size_bytes,
        engine=model.engine,
        kernels=model.session.mode,
    )


def _sorted(judged: Sequence[Judged]) -> tuple[PairDifference, ...]:
    results = [pair.result() for pair in judged if pair.mismatch is None]
    return tuple(sorted(results, key=PairDifference.worst_first))


# -- inputs ---------------------------------------------------------------------------------------


def _source(pairs: Pairs, a: Opened, b: Opened, data: Any, samples: int | None) -> Source:
    from edgeq.data import open_source, synthetic

    inputs = [info for info, _ in pairs.matched]
    if data is not None:
        specs = _specs(pairs, a, b)
        return open_source(data, inputs=inputs, specs=specs, limit=samples)
    ranges = {
        info.name: ends
        for info, other in pairs.matched
        if (ends := _common(a.ranges.get(info.name), b.ranges.get(other.name))) is not None
    }
    shapes = {info.name: b.shapes.get(other.name) for info, other in pairs.matched} | dict(a.shapes)
    inputs = [_sized(info, shapes.get(info.name)) for info in inputs]
    try:
        source = synthetic(inputs, samples or SYNTHETIC, SEED, ranges)
    except EdgeqError as error:
        hint = "give samples: `--data samples.npz`"
        raise EdgeqError(error.slug, error.message, hint) from error
    missing = [f"`{info.name}`" for info in inputs if info.name not in ranges]
    where = "uniform in the calibrated ranges of the bundles"
    if missing:
        where = f"{', '.join(missing)} of no range known, so they are no measure of real inputs"
    return replace(source, notes=(*source.notes, f"no data was given: inputs are made up, {where}"))


def _common(
    one: tuple[float, float] | None, two: tuple[float, float] | None
) -> tuple[float, float] | None:
    """Where both were calibrated; A's range where the two have nothing in common."""
    if one is None or two is None:
        return one or two
    low, high = max(one[0], two[0]), min(one[1], two[1])
    return (low, high) if low <= high else one


def _sized(info: Any, shape: tuple[int, ...] | None) -> Any:
    """An input whose free sizes are those it was calibrated with."""
    if shape is None or len(shape) != len(info.shape):
        return info
    pairs = zip(info.shape, shape, strict=True)
    return replace(info, shape=tuple(x if isinstance(x, int) else y for x, y in pairs))


def _specs(pairs: Pairs, a: Opened, b: Opened) -> dict[str, Any]:
    """The preprocessing of each input: A's, else B's; two that contradict are refused."""
    specs: dict[str, Any] = {}
    for info, other in pairs.matched:
        found = [
            spec for spec in (a.specs.get(info.name), b.specs.get(other.name)) if spec is not None
        ]
        if len(found) == 2 and found[0] != found[1]:
            raise EdgeqError(
                "not-comparable",
                f"input `{info.name}` is preprocessed otherwise in {a.name} than in {b.name}",
                "compare on arrays that are ready: `--data samples.npz`",
            )
        if found:
            specs[info.name] = found[0]
    return specs


# -- outputs --------------------------------------------------------------------------------------


def _viewer(model: Opened) -> Any:
    """What shows the tensors inside a file, None where nothing does for its format."""
    if model.format not in registry.names("viewers"):
        return None
    return registry.resolve("viewers", model.format)(model.artifact())


def _compare_outputs(work: Work, viewers: Sequence[Any]) -> list[Judged]:
    pairs = pair_outputs(work.a, work.b)
    work.notes.extend(pairs.notes)
    work.not_compared.extend(pairs.alone)
    judged = [
        _judged(_output(viewers[0], one.name), _output(viewers[1], two.name))
        for one, two in pairs.matched
    ]
    with Stage("Compared", work.progress) as stage:
        for one, two in work.feeds():
            _add(work, judged, work.a.session.run(one), work.b.session.run(two))
            work.samples += 1
            work.progress(StageProgress("Compared", work.samples, work.source.count))
        work.samples *= work.source.group
        stage.done(on_samples(work.samples), f"outputs: {len(judged)}")
    work.a.session.close()
    work.b.session.close()
    work.not_compared.extend(_mismatches(judged))
    return judged


def _output(viewer: Any, name: str) -> Held:
    from edgeq.quant.fidelity import Held

    held: Held = Held(name, name) if viewer is None else viewer.outputs[name]
    return held


def _judged(a: Held, b: Held) -> Judged:
    from edgeq.quant.fidelity import Sums

    return Judged(a, b, Sums(a.name))


def _add(work: Work, judged: Sequence[Judged], one: Arrays, two: Arrays) -> None:
    import numpy as np

    for pair in judged:
        wanted, got = one[pair.a.fetch], two[pair.b.fetch]
        pair.add(wanted, got)
        if got.dtype.kind != "f" or wanted.dtype.kind != "f" or wanted.shape != got.shape:
            continue
        if bool(np.any(~np.isfinite(got) & np.isfinite(wanted))):
            work.warnings.append(
                f"`{pair.b.name}` of {work.b.name} is not finite where that of {work.a.name} is"
            )


def _mismatch(one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]) -> str | None:
    """Why two arrays cannot be compared."""
    if one.shape != two.shape:
        return f"its shape is {list(one.shape)} in A and {list(two.shape)} in B"
    kinds = {"i" if array.dtype.kind in "iu" else array.dtype.kind for array in (one, two)}
    if len(kinds) == 2:
        return f"it is {one.dtype.name} in A and {two.dtype.name} in B"
    return None


def _mismatches(judged: Sequence[Judged]) -> Iterator[tuple[str, str]]:
    for pair in judged:
        if pair.mismatch is not None:
            yield pair.a.name, pair.mismatch


# -- inside ---------------------------------------------------------------------------------------


def _compare_inside(work: Work, viewers: Sequence[Any]) -> list[Judged]:
    """Every tensor that both files hold under one name, in groups of bounded size."""
    models_seen = list(zip((work.a, work.b), viewers, strict=True))
    for model, viewer in models_seen:
        if viewer is None:
            work.notes.append(
                f"{model.name}: nothing shows the tensors inside {model.format} files"
            )
            return []
    judged = _inner_pairs(viewers)
    if not judged:
        work.notes.append("the two have no inner tensor of the same name")
        return []
    feeds = next(work.feeds())
    with Stage("Compared", work.progress) as stage:
        sizes = []
        for (model, viewer), feed in zip(models_seen, feeds, strict=True):
            try:
                sizes.append(_sizes(model, viewer, [pair.a.name for pair in judged], feed))
            except EdgeqError as error:
                work.notes.append(f"tensors inside {model.name} are not shown: {error.message}")
                return []
        for group in _groups(judged, sizes):
            _run_group(work, models_seen, group)
        stage.done(on_samples(work.samples), f"inner tensors of one name: {len(judged)}")
    work.not_compared.extend(_mismatches(judged))
    return judged


def _inner_pairs(viewers: Sequence[Any]) -> list[Judged]:
    """Pairs of one name. Of two files that hold channels alike nothing is moved; where one is of
    another tool and the other an ONNX file, shapes tell which axes belong together."""
    a, b = viewers
    pairs = [_judged(one, two) for one, two in _same_name(a.inside, b.inside)]
    known = [getattr(viewer, "knows_axes", None) for viewer in viewers]
    if False not in known:
        return pairs
    both_tflite = None not in known
    for pair in pairs:
        if both_tflite:
            pair.a = replace(pair.a, channels_last=False)
            pair.b = replace(pair.b, channels_last=False)
        pair.unknown_axes = not both_tflite
    return pairs


def _aligned(
    one: np.ndarray[Any, Any], two: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Both with their channels in the same place, where the shapes say which that is."""
    import numpy as np

    if one.shape == two.shape or one.ndim != two.ndim or one.ndim < 3:
        return one, two
    for moved in (np.moveaxis(two, -1, 1), np.moveaxis(two, 1, -1)):
        if moved.shape == one.shape:
            return one, moved
    return one, two


def _same_name(a: Mapping[str, Held], b: Mapping[str, Held]) -> list[tuple[Held, Held]]:
    """Tensors of one name. Codes have names before, in and after quantization: the shortest stays,
    which is the one that the float model knows the tensor by."""
    found: dict[tuple[str, str], tuple[Held, Held]] = {}
    for name in sorted((name for name in a if name in b), key=len):
        found.setdefault((a[name].fetch, b[name].fetch), (a[name], b[name]))
    order = {name: place for place, name in enumerate(a)}
    return sorted(found.values(), key=lambda pair: order[pair[0].name])


@contextmanager
def _shown(model: Opened, artifact: bytes) -> Iterator[Any]:
    """A session of a file that shows its inner tensors, closed on leaving."""
    session = registry.resolve("engines", model.session.engine)(
        artifact, exact=True, low_memory=True
    )
    try:
        yield as_float(session, model.ends)
    finally:
        session.close()


def _sizes(model: Opened, viewer: Any, names: Sequence[str], feed: Arrays) -> dict[str, int]:
    """About how many bytes each tensor of `names` takes, by the shapes that the engine infers.

    The file that shows all of them is tried in a child first; here it is opened and not run, for an
    engine holds every output of a run, asked for or not.
    """
    from edgeq_runtime import isolate

    artifact = viewer.showing(names)
    isolate.probe(artifact, engine=model.session.engine, timeout_s=models.PROBE_SECONDS)
    with _shown(model, artifact) as session:
        size = _estimate(session, feed)
        sizes = {name: size(viewer.inside[name].fetch) for name in names}
    largest = max((each for each in sizes.values() if each is not None), default=UNKNOWN_BYTES)
    return {name: largest if each is None else each for name, each in sizes.items()}


def _groups(judged: Sequence[Judged], sizes: Sequence[Mapping[str, int]]) -> list[list[Judged]]:
    """Pairs in groups of about `GROUP_BYTES` a side."""
    groups: list[list[Judged]] = [[]]
    held = 0
    for pair in judged:
        size = max(each[pair.a.name] for each in sizes)
        if groups[-1] and held + size > GROUP_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(pair)
        held += size
    return groups


def _run_group(
    work: Work, models_seen: Sequence[tuple[Opened, Any]], group: Sequence[Judged]
) -> None:
    names = [pair.a.name for pair in group]
    (a, in_a), (b, in_b) = models_seen
    with _shown(a, in_a.showing(names)) as one, _shown(b, in_b.showing(names)) as two:
        fetch_a = list(dict.fromkeys(pair.a.fetch for pair in group))
        fetch_b = list(dict.fromkeys(pair.b.fetch for pair in group))
        for done, (feed_a, feed_b) in enumerate(work.feeds(), 1):
            _add(work, group, one.run(feed_a, names=fetch_a), two.run(feed_b, names=fetch_b))
            work.progress(StageProgress("Compared", done, work.source.count))


def _estimate(session: Any, feed: Arrays) -> Callable[[str], int | None]:
    """name -> bytes of an output, free sizes being the inputs' of the same name; None where the
    engine infers no shape."""
    import numpy as np

    known: dict[Any, int] = {}
    for info in session.inputs:
        array = feed.get(info.name)
        known.update(zip(info.shape, () if array is None else array.shape, strict=False))
    known.pop(None, None)
    infos = {info.name: info for info in session.outputs}

    def size(name: str) -> int | None:
        info = infos[name]
        sizes = [each if isinstance(each, int) else known.get(each) for each in info.shape]
        item = 8 if info.dtype in ("object", "bfloat16") else np.dtype(info.dtype).itemsize
        plain = [each for each in sizes if each is not None]
        return prod(plain) * item if len(plain) == len(sizes) else None

    return size

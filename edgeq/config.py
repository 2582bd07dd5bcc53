"""The settings of a build: one dataclass for flags, EDGEQ_* variables, edgeq.toml and the API.

Precedence is flags > EDGEQ_* > edgeq.toml > defaults, and each value knows where it came from.
The file is data: nothing in it is executed, and a key that edgeq does not know is an error.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from edgeq.errors import EdgeqError, did_you_mean

FILE_NAME = "edgeq.toml"
MAX_FILE_BYTES = 1 << 20
MAX_RANK = 16
MAX_DIMENSION = 2**31 - 1

PRECISIONS = ("auto", "fp32", "fp16", "int8")
PACKAGINGS = ("zip", "dir")
AUTO = "auto"
"""What leaves a choice to edgeq, which then measures."""
FORMATS = ("auto", "onnx", "ort", "tflite")
"""Forms of the artifact; auto is what the chosen engine reads: onnx, or tflite."""
DEFAULT = "default"
"""The engine that the target names first."""
ENGINES = (DEFAULT, "auto", "ort", "litert")
"""Engines to build for; auto builds for each and keeps one by measuring."""
BORDERS = ("auto", "float", "int8")
"""Types of inputs and outputs of an int8 artifact; auto is float, or int8 as a source has them."""
LAYOUTS = ("keep", "nhwc")
"""Axes of images at the border: the source's own, or channels last."""
WEIGHTS = ("auto", "int8", "int4", "int4-block32")
"""How weights are stored in an int8 build; int4 is for layers whose `acts` are dynamic."""
ACTS = ("auto", "static", "dynamic", "mixed", "fp32")
"""What layers read in an int8 build: ranges from data, ranges found at run time, both, or float."""


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """Everything `edgeq build` can be told. Wrong types and choices raise `[config]`.

    Paths are strings, relative to the current folder (those of edgeq.toml are made so by `load`).
    `data` and `eval` may be `file.py:function`. `gate` and `keep_float` also take a comma string.
    `algo` is a name of the registry's algorithms, or `auto`: chosen by measuring.
    `shape` maps an input's name to its dimensions; `input` maps one to its `[input.NAME]` table.
    `packaging` is the flag `--as` and the key `as`.
    """

    model: str | None = None
    target: str | None = None
    precision: str = "auto"
    data: str | None = None
    samples: int | None = None
    eval: str | None = None
    metric: str | None = None
    gate: tuple[str, ...] = ()
    strict: bool = False
    keep_float: tuple[str, ...] = ()
    algo: str = AUTO
    shape: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    synthetic_data: bool = False
    labels: str | None = None
    packaging: str = "zip"
    out: str | None = None
    force: bool = False
    weights: str = "auto"
    acts: str = "auto"
    format: str = "auto"
    engine: str = DEFAULT
    io: str = "auto"
    layout: str = "keep"
    input: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, row in FIELDS.items():
            try:
                value = row.check(getattr(self, name))
            except _Wrong as wrong:
                raise wrong.error(f"`{row.word}`") from None
            object.__setattr__(self, name, value)


class Resolved(NamedTuple):
    """Settings with the origin of every field: "flag", "EDGEQ_X", "edgeq.toml:7" or "default"."""

    settings: BuildSettings
    origins: dict[str, str]


class Loaded(NamedTuple):
    """What a settings file holds: values by field name, and the `file:line` of each."""

    values: dict[str, Any]
    origins: dict[str, str]


def resolve(
    flags: Mapping[str, Any], env: Mapping[str, str], path: Path | str | None = None
) -> Resolved:
    """Merge flags (by field name, None = not given), environment and the file at `path`, if any."""
    unknown = sorted(set(flags) - set(FIELDS))
    assert not unknown, f"flags that are no fields of BuildSettings: {unknown}"
    values: dict[str, Any] = {}
    origins = dict.fromkeys(FIELDS, "default")
    layers = (load(path) if path is not None else Loaded({}, {}), _environment(env))
    for layer in layers:
        values.update(layer.values)
        origins.update(layer.origins)
    given = {name: value for name, value in flags.items() if value is not None}
    values.update(given)
    origins.update(dict.fromkeys(given, "flag"))
    return Resolved(BuildSettings(**values), origins)


def load(path: Path | str) -> Loaded:
    """Read a settings file: at most 1 MB of TOML, every key and type checked, paths made usable.

    A relative path in it is relative to the file's folder. Raises `[config]` with `file:line`.
    """
    path = Path(path)
    text = _read(path)
    document = _parse(text, path)
    lines = dict(_key_lines(text))
    folder = path.parent
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for word, raw in document.items():
        where = f"{path}:{lines.get((word,), 1)}"
        name = _field_of(word, where)
        try:
            value = FIELDS[name].check(raw)
        except _Wrong as wrong:
            line = lines.get((word, *wrong.keys), lines.get((word,), 1))
            raise wrong.error(f"{path}:{line}: `{'.'.join((word, *wrong.keys))}`") from None
        values[name] = _rebase(FIELDS[name].kind, value, folder)
        origins[name] = where
    return Loaded(values, origins)


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`image=1x3x224x224` as ("image", (1, 3, 224, 224)); dimensions of 1 or more, rank 1 to 16."""
    name, equals, dims = text.rpartition("=")
    parts = dims.split("x")
    if not (equals and name and len(parts) <= MAX_RANK and all(map(_is_dimension, parts))):
        raise EdgeqError(
            "bad-shape", f"shape `{text}` is not NAME=1x3x224x224", "--shape image=1x3x224x224"
        )
    return name, tuple(int(part) for part in parts)


def _is_dimension(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,10}", text)) and 1 <= int(text) <= MAX_DIMENSION


# -- kinds of values: each check takes what TOML, a flag or the API gave and returns the clean value


class _Wrong(Exception):
    """A value that does not fit, said without its place: `keys` lead to it inside the setting."""

    def __init__(self, problem: str, *hints: str, keys: tuple[str, ...] = ()) -> None:
        super().__init__(problem)
        self.problem, self.hints, self.keys = problem, hints, keys

    def error(self, where: str) -> EdgeqError:
        return EdgeqError("config", f"{where} {self.problem}", *self.hints)


def _say(value: object) -> str:
    """A value with its TOML type, for a message: the string `"many"`, the integer `3`."""
    words = {bool: "boolean", int: "integer", float: "float", str: "string", list: "array"}
    kind = next((word for type_, word in words.items() if type(value) is type_), None)
    if kind is None:
        return "a table" if isinstance(value, Mapping) else f"a {type(value).__name__}"
    shown = f'"{value}"' if isinstance(value, str) else str(value).lower()
    return f"the {kind} `{shown if len(shown) <= 60 else shown[:57] + '...'}`"


def _text(value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    if isinstance(value, Path):
        return str(value)
    raise _Wrong(f"must be a string that is not empty, got {_say(value)}")


def _name(value: object) -> str:
    text = _text(value)
    if text is None:
        raise _Wrong("must be a string that is not empty")
    return text


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise _Wrong(f"must be true or false, got {_say(value)}")


def _count(value: object) -> int | None:
    if value is None or (type(value) is int and value >= 1):
        return value
    raise _Wrong(f"must be a whole number of 1 or more, got {_say(value)}")


def _choice(choices: tuple[str, ...]) -> Callable[[object], str]:
    def check(value: object) -> str:
        if isinstance(value, str) and value in choices:
            return value
        known = ", ".join(f"`{choice}`" for choice in choices)
        hints = did_you_mean(value, choices) if isinstance(value, str) else ()
        close = tuple(hint for hint in hints if hint.startswith("did you mean"))
        raise _Wrong(f"must be one of {known}, got {_say(value)}", *close)

    return check


def _words(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, list | tuple):
        for part in value:
            if not isinstance(part, str) or not part.strip():
                raise _Wrong(f"must hold strings that are not empty, got {_say(part)}")
        return tuple(part.strip() for part in value)
    raise _Wrong(f"must be a list of strings or a comma string, got {_say(value)}")


def _shapes(value: object) -> dict[str, tuple[int, ...]]:
    if isinstance(value, str | list | tuple):
        return dict(_parsed(part) for part in _words(value))
    if isinstance(value, Mapping):
        return {str(name): _dimensions(str(name), dims) for name, dims in value.items()}
    raise _Wrong(f"must be NAME=1x3x224x224 or a table of them, got {_say(value)}")


def _parsed(text: str) -> tuple[str, tuple[int, ...]]:
    try:
        return parse_shape(text)
    except EdgeqError as error:
        raise _Wrong(f"holds a {error.message}", *error.hints) from None


def _dimensions(name: str, dims: object) -> tuple[int, ...]:
    if isinstance(dims, str):
        parts: list[object] = list(dims.split("x"))
    else:
        parts = list(dims) if isinstance(dims, list | tuple) else []
    texts = [str(part) for part in parts if type(part) in (int, str)]
    if parts and len(texts) == len(parts) <= MAX_RANK and all(map(_is_dimension, texts)):
        return tuple(int(text) for text in texts)
    raise _Wrong(
        f'must be [1, 3, 224, 224] or "1x3x224x224", got {_say(dims)}',
        f'{name} = "1x3x224x224"',
        keys=(name,),
    )


def _inputs(value: object) -> dict[str, dict[str, Any]]:
    if not isinstance(value, Mapping):
        raise _Wrong(f"must be tables `[input.NAME]`, got {_say(value)}")
    if not value:
        return {}
    from edgeq_runtime.preprocess import InputSpec

    tables: dict[str, dict[str, Any]] = {}
    for name, table in value.items():
        if not isinstance(table, Mapping):
            raise _Wrong(f"must be a table `[input.{name}]`, got {_say(table)}", keys=(name,))
        try:
            InputSpec.from_table(name, table)
        except EdgeqError as error:
            keys = next(((key,) for key in table if f"`{key}`" in error.message), ())
            raise _Wrong(f"is wrong: {error.message}", *error.hints, keys=(name, *keys)) from None
        tables[name] = dict(table)
    return tables


@dataclass(frozen=True)
class Row:
    """How one field is written: its word in files and variables, its kind, and its check."""

    word: str
    kind: str
    check: Callable[[Any], Any]


FIELDS: dict[str, Row] = {
    "model": Row("model", "path", _text),
    "target": Row("target", "text", _text),
    "precision": Row("precision", "text", _choice(PRECISIONS)),
    "data": Row("data", "path", _text),
    "samples": Row("samples", "count", _count),
    "eval": Row("eval", "path", _text),
    "metric": Row("metric", "text", _text),
    "gate": Row("gate", "words", _words),
    "strict": Row("strict", "flag", _flag),
    "keep_float": Row("keep_float", "words", _words),
    "algo": Row("algo", "text", _name),
    "shape": Row("shape", "shape", _shapes),
    "synthetic_data": Row("synthetic_data", "flag", _flag),
    "labels": Row("labels", "path", _text),
    "packaging": Row("as", "text", _choice(PACKAGINGS)),
    "out": Row("out", "path", _text),
    "force": Row("force", "flag", _flag),
    "weights": Row("weights", "text", _choice(WEIGHTS)),
    "acts": Row("acts", "text", _choice(ACTS)),
    "format": Row("format", "text", _choice(FORMATS)),
    "engine": Row("engine", "text", _choice(ENGINES)),
    "io": Row("io", "text", _choice(BORDERS)),
    "layout": Row("layout", "text", _choice(LAYOUTS)),
    "input": Row("input", "tables", _inputs),
}
assert tuple(FIELDS) == tuple(item.name for item in fields(BuildSettings))

_FIELD_OF_WORD = {row.word: name for name, row in FIELDS.items()}


def _field_of(word: str, where: str) -> str:
    if word in _FIELD_OF_WORD:
        return _FIELD_OF_WORD[word]
    if word in FIELDS:
        hints: tuple[str, ...] = (f"did you mean `{FIELDS[word].word}`?",)
    else:
        hints = did_you_mean(word.replace("-", "_"), _FIELD_OF_WORD)
    raise EdgeqError("config", f"{where}: unknown key `{word}`", *hints)


# -- the environment ----------------------------------------------------------------------------


def _environment(env: Mapping[str, str]) -> Loaded:
    """EDGEQ_TARGET and the like, one for each field that is not a table; empty means not given."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, row in FIELDS.items():
        variable = f"EDGEQ_{row.word.upper()}"
        text = env.get(variable, "").strip()
        if not text or row.kind == "tables":
            continue
        try:
            values[name] = row.check(_from_text(row.kind, text))
        except _Wrong as wrong:
            raise wrong.error(f"{variable}") from None
        origins[name] = variable
    return Loaded(values, origins)


def _from_text(kind: str, text: str) -> object:
    """A variable's text as the type its field wants, or the text itself for the check to refuse."""
    if kind == "count" and re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    if kind == "flag":
        return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(
            text.lower(), text
        )
    return text


# -- the file -----------------------------------------------------------------------------------


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as failure:
        raise EdgeqError("config", f"{path}: cannot be read: {failure.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise EdgeqError("config", f"{path}: larger than {MAX_FILE_BYTES} bytes")
    try:
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as failure:
        line = data[: failure.start].count(b"\n") + 1
        raise EdgeqError("config", f"{path}:{line}: not UTF-8 text") from None


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise EdgeqError("config", f"{path}: nested too deeply") from None
    except ValueError as failure:  # TOMLDecodeError, or an integer of too many digits
        place = re.search(r" \(at line (\d+), column \d+\)$", str(failure))
        problem = str(failure)[: place.start()] if place else str(failure)
        problem = problem.replace(" (at end of document)", "")
        line = place[1] if place else str(text.count("\n") + 1)
        raise EdgeqError(
            "config", f"{path}:{line}: not TOML: {problem[:1].lower()}{problem[1:]}"
        ) from None


def _rebase(kind: str, value: Any, folder: Path) -> Any:
    """A path of the file, relative to its folder, as one relative to the current folder."""
    if kind != "path" or value is None:
        return value
    return str(folder / value)  # an absolute path replaces the folder; `file.py:name` is untouched


_TOKEN = re.compile(
    r"""  \"{3}(?:\\.|[^\\])*?\"{3,5} | '{3}.*?'{3,5} | "(?:\\.|[^"\\\n])*" | '[^'\n]*'
        | \#[^\n]* | \n | [\[\]{}] | [^"'\#\n\[\]{}]+ | . """,
    re.DOTALL | re.VERBOSE,
)
_KEY_PART = re.compile(r"\s*(?:\"((?:\\.|[^\"\\])*)\"|'([^']*)'|([A-Za-z0-9_-]+))\s*\.?")


def _key_lines(text: str) -> Iterator[tuple[tuple[str, ...], int]]:
    """Each (dotted key, line) of a text that tomllib has accepted, every prefix at its first line.

    tomllib keeps no positions, so this walks the tokens: a statement ends at a newline outside all
    brackets. Keys inside an inline table have the line of their statement.
    """
    seen: set[tuple[str, ...]] = set()
    table: tuple[str, ...] = ()
    for statement, line in _statements(text):
        if statement.startswith("["):
            key = table = _split_key(statement.lstrip("[ \t"))
        else:
            key = table + _split_key(statement)
        for length in range(1, len(key) + 1):
            if key[:length] not in seen:
                seen.add(key[:length])
                yield key[:length], line


def _statements(text: str) -> Iterator[tuple[str, int]]:
    line, depth, start = 1, 0, 1
    parts: list[str] = []
    for token in (*_TOKEN.findall(text), "\n"):
        if token == "\n" and depth == 0:
            if parts:
                yield "".join(parts).strip(), start
            parts = []
        elif not token.startswith("#") and (parts or token.strip()):
            start = start if parts else line
            depth += token in ("[", "{")
            depth -= token in ("]", "}")
            parts.append(token)
        line += token.count("\n")


def _split_key(statement: str) -> tuple[str, ...]:
    """The dotted key that a statement or a header begins with."""
    parts: list[str] = []
    place = 0
    while match := _KEY_PART.match(statement, place):
        double, single, bare = match.groups()
        if double is not None:
            parts.append(tomllib.loads(f'k = "{double}"')["k"])
        else:
            parts.append(single if single is not None else bare)
        place = match.end()
        if not match[0].rstrip().endswith("."):
            break
    return tuple(parts)

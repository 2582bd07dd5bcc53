"""Any JSON anywhere in a manifest whose digest is right: an EdgeqError or a bundle."""

import copy
import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgeq_runtime import EdgeqError, reader
from edgeq_runtime.manifest import Manifest

NASTY: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 255, 2**31, 2**53, 2**63, 10**39, -(2**63), 0.5, -0.0),
    *(1e-320, 1e308, -1e308, "", "x", "y", "\x01", "\u202e", "a" * 1000, "../x", "manifest.json"),
    *("float32", "uint8", "object", "codes", "equal", "tolerance", "splitmix64", "model.onnx"),
    *([], [[]], [0], [1, 4], [-1], [2**62, 2**62], [None], ["x"] * 3, {}, {"": {}}, {"a": [1]}),
]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) below `value`."""
    rows = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(rows):
        yield value, key
        if isinstance(item, dict | list):
            yield from places(item)


def mutate(document: dict[str, Any], rng: random.Random) -> None:
    container, key = rng.choice(list(places(document)))
    action = rng.randrange(5)
    if action == 0:
        del container[key]
    elif action == 1 and isinstance(container, dict):
        container[rng.choice(["x_new", "new", "", "name", "rule"])] = container[key]
    elif action == 2 and isinstance(container, list):
        container.insert(0, copy.deepcopy(container[key]))
    elif action == 3:
        other, place = rng.choice(list(places(document)))
        container[key] = copy.deepcopy(other[place])
    else:
        container[key] = copy.deepcopy(rng.choice(NASTY))


def outcome(files: Mapping[str, bytes]) -> Manifest | EdgeqError:
    try:
        return reader.read(files).manifest
    except EdgeqError as error:
        return error


def test_three_thousand_hostile_manifests(
    int8_bundle: Mapping[str, bytes], edited: Callable[..., Mapping[str, bytes]]
) -> None:
    rng, read, slugs = random.Random(3), 0, set()
    for _ in range(3000):
        times = rng.choice([1, 1, 2, 4])

        def change(document: dict[str, Any], times: int = times) -> None:
            for _ in range(times):
                mutate(document, rng)

        files = edited(int8_bundle, change)
        manifest = outcome(files)
        if isinstance(manifest, EdgeqError):
            slugs.add(manifest.slug)
            assert len(str(manifest)) < 2000
            continue
        read += 1
        json.dumps(manifest.to_json())
        assert all(row.size <= 2**28 for v in manifest.golden.vectors for row in _arrays(v))
    assert slugs == {"damaged-bundle", "bundle-version"}
    assert 100 < read < 2000


def _arrays(vector: Any) -> Iterator[Any]:
    """What the reader let through can be generated."""
    for row in vector.inputs:
        array = row.array()
        assert array.dtype.name == row.dtype
        assert array.shape == row.shape
        yield array

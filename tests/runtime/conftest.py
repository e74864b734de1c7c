"""One small network with every trap in it, compiled once for each runtime."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.runtime.nets import BATCH, make_net
from visionkit.runtime.adaptors import ADAPTORS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def net() -> Any:
    return make_net()


@pytest.fixture(scope="session")
def feed() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(11)
    return {
        "zebra": generator.standard_normal((BATCH, 5, 7, 3)).astype(np.float32),
        "apple": generator.standard_normal((BATCH, 4)).astype(np.float32),
    }


@pytest.fixture(scope="session")
def expected(net: Any, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    outputs = net([feed["zebra"], feed["apple"]], training=False)
    return {name: np.array(tensor) for name, tensor in outputs.items()}


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def artifacts(net: Any) -> Callable[[str], bytes]:
    """The network as the content of a `.pb`, `.tflite` or `.onnx`."""
    from visionkit.runtime.programs import KerasProgram

    program = KerasProgram(net, BATCH)
    return lambda suffix: program.artifact(suffix, "float32")


@pytest.fixture
def only_adaptors(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Leaves these runtimes in the table, in this order."""

    def restrict(*adaptors: Any) -> None:
        table = {item.name: item for item in (ADAPTORS[a] if isinstance(a, str) else a for a in adaptors)}
        for name in list(ADAPTORS):
            monkeypatch.delitem(ADAPTORS, name)
        for name, adaptor in table.items():
            monkeypatch.setitem(ADAPTORS, name, adaptor)

    return restrict


@pytest.fixture
def child_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}

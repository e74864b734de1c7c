"""What every test may use."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips and references beside the checkout; tests that need it are skipped without it."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the reference material in {SHARED}, which is not there")
    return SHARED


# They build the wheel and install it: 3 GB, once where one process runs them all.
INSTALLING = ("tests/faults/test_edge_artifacts.py", "tests/faults/test_j6_clean_install.py", "tests/test_install.py")


def pytest_collection_finish() -> None:
    """Takes what is imported by now out of the search for garbage, which was a tenth of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Shares files out in their order, so that the small ones come last; those that install are as one file."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return INSTALLING[0] if file in INSTALLING else file

    config.option.loadscopereorder = False
    return ByFile(config, log)

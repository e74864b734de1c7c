"""`import visionkit` is cheap and its public names are there when touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import visionkit

ROOT = Path(__file__).resolve().parents[1]


def test_import_loads_nothing_heavy():
    heavy = {"numpy", "cv2", "keras", "tensorflow"}
    code = f"import sys, visionkit; dir(visionkit); print(sorted(set(sys.modules) & {heavy}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["load", "recipe", "run", "stream"])
def test_public_functions_are_found(name):
    assert callable(getattr(visionkit, name))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'visionkit' has no attribute 'laod'"):
        getattr(visionkit, "laod")  # noqa: B009 - a name that is not there
    assert set(visionkit.__all__) <= set(dir(visionkit))


def test_nets_are_functions_even_after_their_file_was_imported():
    code = (
        "import visionkit as vk, visionkit.nets.siamfc; from visionkit import nets\n"
        "print(callable(nets.siamfc), callable(nets.siambox), callable(nets.siamfc_branch))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True True True\n"

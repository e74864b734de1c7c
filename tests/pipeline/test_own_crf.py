"""What the options about a CRF mean for a model that was exported with one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from visionkit.crf import CRFParams
from visionkit.errors import UsageError
from visionkit.pipeline import step_segment
from visionkit.pipeline.step_segment import CRF_NUMBERS, check_segment
from visionkit.tasks.load_segment import TRAINED_CRF
from visionkit.weights.artifact import attach, describe_artifact
from visionkit.weights.card_file import parse_card

OWN = CRFParams(theta_alpha=20.0, iterations=7)
OTHERS = ("crf", "crf_iterations", "crf_video", "scales", "imgsz", "tile", "overlap", "tta", "native")
FREE = dict.fromkeys((*CRF_NUMBERS, *OTHERS))
CARD = {
    "task": "segment",
    "network": "unet",
    "licence": "MIT",
    "labels": ["no", "yes"],
    "input": {"size_hw": [32, 48], "resize": "stretch"},
}


def options(folder: Path, own: Any, **given: Any) -> dict[str, Any]:
    """Of the command line, for a model whose description has this CRF."""
    path = folder / "m.xml"
    path.write_text("<net/>")
    attach(path, describe_artifact(parse_card(CARD, folder), made={} if own is None else {"crf": own}))
    return {**FREE, "model": str(path), **given}


@pytest.mark.parametrize(
    "given", [{"crf_video": False}, {"theta_alpha": 9.0}, {"crf_iterations": 2}, {"crf": True}, {}]
)
def test_a_models_own_crf_is_changed_by_what_is_given(tmp_path: Path, given: dict[str, Any]) -> None:
    told = options(tmp_path, dataclasses.asdict(OWN), **given)
    check_segment(told)
    found = step_segment._crf(told)
    changed = {{"crf_iterations": "iterations"}.get(key, key): value for key, value in given.items()}
    changed = {key: value for key, value in changed.items() if key not in ("crf", "crf_video")}
    wanted = {**dataclasses.asdict(OWN), **changed}
    assert found in ([None] if not set(given) - {"crf_video"} else [wanted])  # None: `load_segmenter` takes its own


def test_no_crf_leaves_it_out(tmp_path: Path) -> None:
    told = options(tmp_path, dataclasses.asdict(OWN), crf=False)
    check_segment(told)
    assert step_segment._crf(told) is False
    with pytest.raises(UsageError, match="leave one of the two out"):
        check_segment({**told, "theta_beta": 4.0})


def test_a_trained_one_is_fixed(tmp_path: Path) -> None:
    told = options(tmp_path, TRAINED_CRF, theta_beta=4.0)
    with pytest.raises(UsageError, match=r"--theta-beta does not change the CRF of .*trained"):
        check_segment(told)
    check_segment({**told, "crf": True})
    assert step_segment._crf({**told, "crf": True}) == {"theta_beta": 4.0}


def test_a_model_without_one_still_needs_the_switch(tmp_path: Path) -> None:
    for told in (options(tmp_path, None, theta_beta=4.0), {**FREE, "model": None, "crf_video": False}):
        with pytest.raises(UsageError, match="give --crf with it"):
            check_segment(told)

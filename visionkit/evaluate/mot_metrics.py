"""Measures of many tracks at once, CLEAR, HOTA and identity, through roboflow's `trackers` (extra `mot`).

Bernardin, Stiefelhagen, Evaluating multiple object tracking performance, 2008 (MOTA, MOTP); Luiten et al., HOTA, IJCV
2021; Ristani et al., Performance measures for multi-target, multi-camera tracking, ECCVW 2016 (IDF1).
"""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Mapping
from pathlib import Path

from visionkit.errors import InputError, UsageError
from visionkit.io import printable_name, read_results
from visionkit.io.tables import MotWriter

__all__ = ["MOT_MEASURES", "mot_library", "mot_scores"]

MOT_MEASURES: Mapping[str, tuple[str, ...]] = {
    "CLEAR": ("MOTA", "MOTP", "CLR_Re", "CLR_Pr", "CLR_TP", "CLR_FN", "CLR_FP", "IDSW", "Frag", "MT", "PT", "ML"),
    "HOTA": ("HOTA", "DetA", "AssA", "LocA"),
    "Identity": ("IDF1", "IDR", "IDP"),
}


def mot_library() -> bool:
    """Whether the library is installed."""
    return importlib.util.find_spec("trackers") is not None


def mot_scores(truth: Path, answer: Path, *, threshold: float = 0.5) -> dict[str, float]:
    """MOTA, MOTP, HOTA, IDF1 and what they are made of, by name; fractions, and counts.

    Args:
        truth: a MOT Challenge file, `frame,id,left,top,width,height,…` a line.
        answer: another, or the `results.jsonl` of a run with `--track`.
        threshold: intersection over union from which an answer is the object's, in CLEAR and identity.

    Raises:
        UsageError: `library-missing`.
        InputError: `input-missing`, `truth-undecodable`; a file cannot be read.
    """
    if not mot_library():
        raise UsageError("library-missing", "Measures of tracks need roboflow's trackers: pip install visionkit[mot].")
    for path in (truth, answer):
        if not path.is_file():
            raise InputError("input-missing", f"{printable_name(path)} is no file. Expected tracks, a line a box.")
    evaluate = importlib.import_module("trackers.eval").evaluate_mot_sequence
    with tempfile.TemporaryDirectory() as folder:
        given = _as_mot(answer, Path(folder) / "answer.txt") if answer.suffix == ".jsonl" else answer
        try:
            result = evaluate(str(truth), str(given), metrics=list(MOT_MEASURES), threshold=threshold)
        except (ValueError, IndexError, KeyError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                "truth-undecodable",
                f"{printable_name(truth)} and {printable_name(answer)} cannot be compared: {reason}. Expected MOT "
                "Challenge's lines: frame,id,left,top,width,height,confidence,…",
            ) from None
    return {
        name: float(getattr(getattr(result, family), name)) for family, names in MOT_MEASURES.items() for name in names
    }


def _as_mot(results: Path, out: Path) -> Path:
    """Rows as lines; a detection without an id is no track."""
    with MotWriter(out) as writer:
        for row in read_results(results):
            found = [one for one in row.get("detections", ()) if one.get("tracker_id") is not None]
            writer.write({**row, "detections": found})
    return out

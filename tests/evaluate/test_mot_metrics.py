"""Measures of tracks by hand: one lost box, one false box, one switch of identity."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from visionkit.errors import InputError, UsageError
from visionkit.evaluate import mot_metrics
from visionkit.evaluate.mot_metrics import mot_scores


def line(frame: int, number: int, left: float) -> str:
    return f"{frame},{number},{left + 1},{11},{20},{30},1,1,1"  # pixels count from 1


def files(root: Path) -> tuple[Path, Path, Path]:
    """Two objects over ten frames; the answer loses one box, invents one, and changes the first one's id at half."""
    truth = [line(k, number, 10 * number * k % 200 + 100 * number) for k in range(1, 11) for number in (1, 2)]
    (root / "gt.txt").write_text("\n".join(truth))
    lines, rows = [], []
    for k in range(1, 11):
        found = []
        for number in (1, 2):
            left = 10 * number * k % 200 + 100 * number
            shown = 7 if number == 1 and k > 5 else number
            if (number, k) != (2, 3):
                lines.append(line(k, shown, left))
                found.append({"xyxy": [left, 10, left + 20, 40], "confidence": 0.9, "tracker_id": shown})
        if k == 4:
            lines.append(line(k, 9, 900))
            found.append({"xyxy": [900, 10, 920, 40], "confidence": 0.9, "tracker_id": 9})
        found.append({"xyxy": [500, 10, 520, 40], "confidence": 0.9})  # not a track
        rows.append({"index": k - 1, "pts_ms": None, "duration_ms": None, "source": "a", "size_hw": [99, 999]})
        rows[-1]["detections"] = found
    (root / "answer.txt").write_text("\n".join(lines))
    (root / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root / "gt.txt", root / "answer.txt", root / "results.jsonl"


def test_by_hand(tmp_path: Path) -> None:
    pytest.importorskip("trackers", reason="roboflow's trackers is not installed")
    truth, answer, rows = files(tmp_path)
    found = mot_scores(truth, answer)
    assert (found["CLR_TP"], found["CLR_FN"], found["CLR_FP"], found["IDSW"]) == (19, 1, 1, 1)
    assert found["MOTA"] == pytest.approx(1 - 3 / 20)
    assert found["MOTP"] == pytest.approx(1.0)
    # identities: the first object half, the second all but one box; 14 of 20 objects and of 20 answers
    assert found["IDF1"] == pytest.approx(14 / 20)
    assert 0.5 < found["HOTA"] < 1
    assert mot_scores(truth, rows) == pytest.approx(found)
    perfect = mot_scores(truth, truth)
    assert (perfect["MOTA"], perfect["HOTA"], perfect["IDF1"]) == pytest.approx((1, 1, 1))


def test_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mot_metrics, "mot_library", lambda: True)
    with pytest.raises(InputError, match="is no file"):
        mot_scores(tmp_path / "a.txt", tmp_path / "b.txt")
    monkeypatch.setattr(mot_metrics, "mot_library", lambda: False)
    with pytest.raises(UsageError, match=r"visionkit\[mot\]"):
        mot_scores(tmp_path / "a.txt", tmp_path / "b.txt")

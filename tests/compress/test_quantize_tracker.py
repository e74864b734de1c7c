"""The bundled tracker judged from end to end on rendered sequences."""

from __future__ import annotations

import json

import cv2
import pytest

from visionkit.compress.judging import judge_variants
from visionkit.compress.trials import DataChoice
from visionkit.compress.wishes import Wishes
from visionkit.train.sequence import rendered_sequence
from visionkit.weights.artifact import read_artifact


def write_rendered(root, name, seed, frames=24):
    """A sequence in the layout of OTB, 1-based."""
    (root / name / "img").mkdir(parents=True)
    rows = []
    for k, (image, (x1, y1, x2, y2)) in enumerate(rendered_sequence(frames, (120, 180), seed=seed)):
        cv2.imwrite(str(root / name / "img" / f"{k:04d}.png"), image)
        rows.append(f"{x1 + 1:.2f},{y1 + 1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}")
    (root / name / "groundtruth_rect.txt").write_text("\n".join(rows))
    return rows[0]


@pytest.mark.slow  # an export, the quantizer on two networks, and the tracker over 200 frames
def test_a_tracker_is_exported_quantized_followed_and_judged(tmp_path):
    data = tmp_path / "data"
    write_rendered(data, "one", 1)
    write_rendered(data, "two", 2)
    x, y, width, height = map(float, write_rendered(tmp_path / "free", "clip", 3).split(","))
    wishes = Wishes(
        ("int8", "int8-io"),
        samples=24,
        ranked=2,
        unlabelled=str(tmp_path / "free" / "clip" / "img"),
        box=(x, y, x + width, y + height),
    )
    judged = judge_variants("siambox_light", DataChoice(data), wishes, tmp_path / "out")
    table = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert table["metric"] == "success AUC"
    float32, int8 = table["reference"], table["variants"][0]
    assert float32["metric"]["value"] > 0.6
    assert int8["failed"] is None
    assert abs(int8["drop"]["value"]) < 5
    assert int8["agreement"] > 0.8
    assert (int8["images"], int8["counted"], int8["frames"]) == (2, 48, 24)
    assert [one["name"] for one in int8["classes"]] == ["one", "two"]
    assert [part["name"] for part in int8["timings"][0]["parts"]] == ["exemplar", "search"]
    assert int8["size"] < 0.36 * float32["size"]  # the halves share their weights in eight bits as in float
    assert all("/" in layer["name"] for layer in table["layers"] if layer["operation"] == "CONV_2D")
    made = read_artifact(tmp_path / "out" / "int8.tflite").made["quantization"]
    assert made["calibration"]["of"] == 48
    assert "unjudged" not in made["calibration"]
    assert "Each sequence" in (tmp_path / "out" / "report.html").read_text()
    assert judged.report.nouns.unit == "sequence"

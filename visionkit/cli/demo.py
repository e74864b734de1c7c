"""`visionkit demo`: a rendered clip with known boxes, tracked, and compared with the truth."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from visionkit.cli.options import model_options
from visionkit.cli.text import emit, examples

__all__ = ["command"]

FRAMES, SIZE_HW, FRAME_MS = 150, (360, 640), 40.0


@click.command(epilog=examples("visionkit demo", "visionkit demo --out runs/first --overwrite"))
@click.option("--out", metavar="DIR", help="Folder for the results.  [default: runs/demo/rendered.mp4]")
@click.option("--overwrite", is_flag=True, help="Replace the results in DIR.")
@model_options
def command(out: str | None, overwrite: bool, **options: Any) -> int:
    """Render a clip with known boxes, follow its object, and tell the overlap with the truth.

    Needs no file, no network and no camera: what works here works on your clip.
    """
    from visionkit.cli.track import follow, load_model
    from visionkit.pipeline import Writing

    with tempfile.TemporaryDirectory(prefix="visionkit-demo-") as folder:
        clip = Path(folder) / "rendered.mp4"
        truth = _render(clip)
        x1, y1, x2, y2 = (float(v) for v in truth[0])
        box = f"{x1:.0f},{y1:.0f},{x2 - x1:.0f},{y2 - y1:.0f}"
        emit(f"rendered {FRAMES} frames of {SIZE_HW[1]} x {SIZE_HW[0]}, with the object in {box} at first")
        writing = Writing(out=out, overwrite=overwrite)
        result = follow(str(clip), (x1, y1, x2, y2), lambda: load_model(options), writing=writing, task="demo")
    if result.out is None:
        raise RuntimeError("A run into a folder has a folder.")
    if result.exit_code == 0:
        mean, least = _overlap(result.out / "results.jsonl", truth)
        emit(f"overlap {mean:.2f} with the truth in the mean, {least:.2f} in the worst of {len(truth)} frames")
    emit(f"annotated video: {result.out / 'annotated.mp4'}")
    return result.exit_code


def _render(path: Path) -> list[Any]:
    """Write the clip and return its true boxes."""
    from visionkit.io import VideoWriter
    from visionkit.train.sequence import rendered_sequence

    truth = []
    with VideoWriter(path, size_hw=SIZE_HW) as writer:
        for i, (image, box) in enumerate(rendered_sequence(FRAMES, SIZE_HW, seed=3)):
            writer.write(image, i * FRAME_MS, FRAME_MS)
            truth.append(box)
    return truth


def _overlap(path: Path, truth: list[Any]) -> tuple[float, float]:
    from visionkit.geometry.boxes import iou_aligned
    from visionkit.io import read_results

    overlap = iou_aligned([row["track"]["xyxy"] for row in read_results(path)], truth)
    return float(overlap.mean()), float(overlap.min())

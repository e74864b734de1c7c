"""`visionkit count`: lines and zones over stored results, without running the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from visionkit.cli.detect import count_options
from visionkit.cli.options import STDOUT
from visionkit.cli.text import clean, emit_json, examples
from visionkit.errors import InputError, UsageError

if TYPE_CHECKING:
    from visionkit.tasks import CountPlan

__all__ = ["command", "count_rows"]


@click.command(
    epilog=examples(
        "visionkit count runs/detect/clip.mp4 --line 0,300,768,300",
        "visionkit count runs/detect/clip.mp4 --zone 100,200,500,200,500,400,100,400 --out zone.json",
    )
)
@click.argument("results")
@count_options
@click.option("--out", metavar="FILE", help="Write the counts as JSON into this file.  [default: to stdout]")
@click.option("--overwrite", is_flag=True, help="Replace FILE.")
def command(results: str, **options: Any) -> int:
    """Count objects in RESULTS, the folder of a `visionkit detect` run or its results.jsonl.

    The numbers are those that `visionkit detect --line … --zone …` would have given. Lines need rows with numbers of
    objects, which `--track` gives.
    """
    from visionkit.pipeline.step_detect import count_lines, plan_of

    plan = plan_of(options)
    if not plan:
        raise UsageError("nothing-to-count", "Say where to count: --line X1,Y1,X2,Y2 or --zone X,Y,X,Y,X,Y, or both.")
    found = count_rows(Path(results), plan)
    if options["out"] in (None, STDOUT):
        emit_json(found)
    else:
        from visionkit.io import write_json

        write_json(options["out"], found, overwrite=options["overwrite"])
    for line in count_lines(found):
        click.echo(clean(line), err=True)
    return 0


def count_rows(results: Path, plan: CountPlan) -> dict[str, Any]:
    """The counts over the rows of a run's folder or of a file.

    Raises:
        InputError: the rows cannot be read, hold no detections (`no-detections`), or no numbers (`no-numbers`) that
            lines need.
        UsageError: `line-outside`, `zone-outside` of the first frame.
    """
    from visionkit.io import read_results
    from visionkit.tasks import Counts
    from visionkit.tasks.counting import detections_of_row

    path = results / "results.jsonl" if results.is_dir() else results
    counts, names, rows, boxes, numbered = Counts(plan), dict[int, str](), 0, 0, False
    for place, row in enumerate(read_results(path)):
        if place == 0:
            plan.check(_size_of(row, path))
        found = detections_of_row(row)
        if found is None:
            continue
        rows, boxes = rows + 1, boxes + len(found)
        names.update({one["class_id"]: one["class_name"] for one in row["detections"]})
        numbered = numbered or any("tracker_id" in one for one in row["detections"])
        counts.add(found)
    if not rows:
        raise InputError(
            "no-detections", f"'{path.name}' holds no rows with detections; `visionkit detect` writes them."
        )
    if plan.lines and boxes and not numbered:
        raise InputError(
            "no-numbers", f"the objects in '{path.name}' have no numbers, which lines need: detect with --track."
        )
    return {"results": path.name, "frames": rows, **counts.summary(names)}


def _size_of(row: dict[str, Any], path: Path) -> tuple[int, int]:
    size = row.get("size_hw")
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        raise InputError("results-corrupt", f"the first line of '{path.name}' does not say the size of its frame")
    return size[0], size[1]

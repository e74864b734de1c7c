"""`visionkit classify --dense`: the same classes at every place of an image, as a heat map."""

from __future__ import annotations

import difflib
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from visionkit.cli.closing import closing_lines, show
from visionkit.cli.options import STDOUT, reading_of, writing_of
from visionkit.cli.text import clean
from visionkit.errors import UsageError

if TYPE_CHECKING:
    from visionkit.pipeline import Item, RunResult
    from visionkit.pipeline.heatmaps import HeatClass
    from visionkit.tasks.dense import DenseClassifier

__all__ = ["check_dense_options", "classify_dense", "dense_options", "find_class", "load_model"]

F = TypeVar("F", bound=Callable[..., Any])


def dense_options(function: F) -> F:
    """Whether every window of a frame is classified, and how."""
    for option in (
        click.option("--heat", metavar="CLASS", help="With --dense: the class to show, by name or id.  [default: top]"),
        click.option("--exact", is_flag=True, help="With --dense: run every window as a crop; slow, and never off."),
        click.option(
            "--stride",
            type=click.IntRange(min=1),
            metavar="N",
            help="With --dense: pixels between windows.  [default: the network's]",
        ),
        click.option("--dense", is_flag=True, help="Classify every window of a frame, and write a heat map of it."),
    ):
        function = option(function)
    return function


def check_dense_options(options: Mapping[str, Any]) -> None:
    """Refuse what has no meaning with, or without, `--dense`.

    Raises:
        UsageError: `dense-needed`, `option-unfit`.
    """
    if not options["dense"]:
        for name in ("stride", "exact", "heat"):
            if options[name]:
                raise UsageError("dense-needed", f"--{name} is about windows of a frame: give --dense with it.")
        return
    unfit = {
        "smooth": (options["smooth_s"], "maps are not averaged over time"),
        "batch": (options["batch"] != 1, "one frame is many windows"),
        "resize": (options["resize"], "frames keep their aspect; --imgsz is their shorter side"),
        "show-transform": (options["show_transform"], "windows are not transformed"),
        "imgsz H,W": (len(options["imgsz"] or ()) > 1, "frames keep their aspect; --imgsz is their shorter side"),
    }
    for name, (given, why) in unfit.items():
        if given:
            raise UsageError("option-unfit", f"--{name} does not go with --dense: {why}. Leave it out.")


def classify_dense(source: str, load: Callable[[], DenseClassifier], options: dict[str, Any]) -> RunResult:
    """Run a dense classifier over `source` as the options say, and tell on stderr what its maps are and how it went."""
    from visionkit.pipeline import run
    from visionkit.pipeline.heatmaps import DenseStage, HeatmapSink

    def chosen(classifier: DenseClassifier) -> HeatClass | None:
        click.echo(clean(told_of(classifier)), err=True)
        return None if options["heat"] is None else find_class(options["heat"], classifier)

    stage = DenseStage(load, heat=chosen)
    best: Counter[str] = Counter()
    writing = writing_of(options)

    def watch(item: Item) -> bool:
        heat = item.results.get("heat")
        best.update(["failed" if heat is None else heat.class_name])
        return not options["show"] or show(item)

    seen = options["show"] or (writing.video and writing.rows is None)
    result = run(
        source,
        [stage],
        task="classify",
        reading=reading_of(options),
        writing=writing,
        draw=_draw if seen else None,
        watch=watch,
        sinks=[HeatmapSink()],
        command=["visionkit", *sys.argv[1:]],
    )
    told = ", ".join(f"{name} in {count}" for name, count in best.most_common(3))
    for line in closing_lines(result, result.counts["rows"], f"heat maps of {told or 'nothing'}"):
        click.echo(clean(line), err=True)
    return result


def load_model(options: dict[str, Any]) -> DenseClassifier:
    """The dense classifier that the options name."""
    from visionkit.cli.download import DownloadBar, announce
    from visionkit.pipeline import network_threads
    from visionkit.tasks.load_classify import DEFAULT_CLASSIFIER, is_model_file
    from visionkit.tasks.load_dense import load_dense_classifier

    name = options["model"] or DEFAULT_CLASSIFIER
    encoding = options["video"] and options["out"] != STDOUT
    names = ("runtime", "precision", "topk", "conf", "classes", "stride", "exact")
    how: dict[str, Any] = {key: options[key] for key in names}
    how["threads"] = options["threads"] or network_threads(encoding=encoding)
    how["short_side"] = options["imgsz"][0] if options["imgsz"] else None
    for key in ("labels", "preset"):
        if options[key] is not None:
            if not is_model_file(name):
                raise UsageError("option-unfit", f"--{key} does not go with this model: a model card says it.")
            how[key] = options[key]
    with DownloadBar(str(name)) as bar:
        return load_dense_classifier(name, on_compile=_tell_compiling, notice=announce, progress=bar, **how)


def told_of(classifier: DenseClassifier) -> str:
    """What the maps are: their windows, and whether they equal the crops."""
    height, width = classifier.network.grid.window_hw
    grid = f"Windows of {width} x {height} pixels, {classifier.stride} apart"
    if classifier.options.exact:
        return f"{grid}, each run as a crop."
    if classifier.exact:
        return f"{grid}; the map equals the crops exactly, since {classifier.reason}."
    return (
        f"{grid}. The map does not equal the crops exactly: {classifier.reason}, and inside a frame there are pixels "
        "where a crop ends. --exact runs the crops, which is slower."
    )


def find_class(text: str, classifier: DenseClassifier) -> HeatClass:
    """The class that a user means: its id, its name, or a part that only one name has; `HEAD:CLASS` for a head.

    Raises:
        UsageError: `class-unknown`, with names that are near.
    """
    from visionkit.pipeline.heatmaps import HeatClass

    labels = classifier.labels
    heads: dict[str | None, Sequence[str]] = {None: labels} if not isinstance(labels, Mapping) else dict(labels.items())
    head, colon, rest = text.partition(":")
    if colon and head in heads:
        heads, text = {head: heads[head]}, rest
    wanted = text.strip().casefold()
    for name, classes in heads.items():
        if wanted.isdecimal() and (not classes or int(wanted) < len(classes)):
            return HeatClass(int(wanted), name)
    known = [(n, HeatClass(i, head)) for head, classes in heads.items() for i, n in enumerate(classes)]
    equal = [(name, place) for name, place in known if name.casefold() == wanted]
    for found in (equal, [(name, place) for name, place in known if wanted and wanted in name.casefold()]):
        if len(found) == 1:
            return found[0][1]
        if found:
            told = _listed([f"{name!r} ({place.class_id})" for name, place in found])
            raise UsageError("class-unknown", f"--heat {text!r} may be {told}: give the id of one of them.")
    near = difflib.get_close_matches(wanted, [name.casefold() for name, _ in known], n=3, cutoff=0.5)
    hint = f"Did you mean {_listed([repr(name) for name in near])}?" if near else "Give a class's name, or its id."
    raise UsageError("class-unknown", f"The model has no class {text!r}. {hint}")


def _listed(names: Sequence[str]) -> str:
    return " or ".join(names[:5]) + (" …" if len(names) > 5 else "")


def _tell_compiling() -> None:
    click.echo("Compiling the network and timing the runtimes of this machine: some seconds, once.", err=True)


def _draw(item: Item) -> None:
    from visionkit.draw.heatmap import draw_heatmap

    heat = item.results.get("heat")
    if heat is not None:
        label = heat.class_name if heat.head is None else f"{heat.head}: {heat.class_name}"
        draw_heatmap(item.frame.image, heat.probs, heat.x, heat.y, label, in_place=True)

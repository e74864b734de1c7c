"""Classifying every window of a frame as a step of a run."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from visionkit.errors import UsageError
from visionkit.pipeline.heatmaps import HEAT, DenseStage, HeatClass, HeatmapSink
from visionkit.pipeline.steps import Silent, Step, Telling
from visionkit.pipeline.threads import network_threads

if TYPE_CHECKING:
    from visionkit.pipeline.stage import Item
    from visionkit.tasks.dense import DenseClassifier

__all__ = ["DenseStep", "dense_classifier_of", "find_class", "told_of"]


class DenseStep(Step):
    """A heat map of every frame.

    Args:
        load: makes the classifier.
        options: `heat`.
        telling: is told what the maps are.
    """

    way = "heat maps of"

    def __init__(
        self, load: Callable[[], DenseClassifier], options: Mapping[str, Any], telling: Telling | None = None
    ) -> None:
        def chosen(classifier: DenseClassifier) -> HeatClass | None:
            (telling or Silent()).say(told_of(classifier))
            return None if options["heat"] is None else find_class(options["heat"], classifier)

        super().__init__(DenseStage(load, heat=chosen), [HeatmapSink()])

    def draw(self, item: Item) -> None:
        """The map, with the name of its class."""
        from visionkit.draw.heatmap import draw_heatmap

        if (heat := item.results.get(HEAT)) is not None:
            label = heat.class_name if heat.head is None else f"{heat.head}: {heat.class_name}"
            draw_heatmap(item.frame.image, heat.probs, heat.x, heat.y, label, in_place=True)

    def names(self, item: Item) -> list[str]:
        """Whose map it is."""
        heat = item.results.get(HEAT)
        return ["failed" if heat is None else heat.class_name]


def dense_classifier_of(
    options: Mapping[str, Any], telling: Telling | None = None, *, encoding: bool = True
) -> DenseClassifier:
    """The dense classifier that the options name; `encoding` says whether the run writes a video."""
    from visionkit.tasks.load_classify import DEFAULT_CLASSIFIER, is_model_file
    from visionkit.tasks.load_dense import load_dense_classifier

    name = options["model"] or DEFAULT_CLASSIFIER
    names = ("runtime", "precision", "topk", "conf", "classes", "stride", "exact")
    how: dict[str, Any] = {key: options[key] for key in names}
    how["threads"] = options["threads"] or network_threads(encoding=encoding)
    how["short_side"] = options["imgsz"][0] if options["imgsz"] else None
    for key in ("labels", "preset"):
        if options[key] is not None:
            if not is_model_file(name):
                raise UsageError("option-unfit", f"--{key} does not go with this model: a model card says it.")
            how[key] = options[key]
    with (telling or Silent()).loading(name) as ready:
        return load_dense_classifier(name, **how, **ready)


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

"""From a model card to a detector that is ready for images."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionkit.errors import ModelError, RecipeError, UsageError
from visionkit.geometry.detection_rules import RCNN_RULES, RCNNRule, rcnn_rule
from visionkit.geometry.ssd_rule import SSDRule
from visionkit.tasks.artifact_network import card_of, described, network_of, one_size, options_of
from visionkit.tasks.detect import BACKGROUND_NAMES, DetectOptions, Detector
from visionkit.tasks.detect_network import DetectEngine, DetectNetwork
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.load_classify import is_model_file, shares
from visionkit.tasks.network import Network
from visionkit.tasks.served import is_served, served_detector

if TYPE_CHECKING:
    import keras

    from visionkit.weights import Card
    from visionkit.weights.fetch import Progress

__all__ = ["DEFAULT_DETECTOR", "default_detector", "load_detector"]

Size = tuple[int, int]

DEFAULT_DETECTOR = "ssdlite320_mobilenet_v3_large"  # the bundled one knows nothing but blood cells


def load_detector(
    name: str | os.PathLike[str] | None = None,
    *,
    runtime: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    batch: int = 1,
    instances: int | None = 1,
    size_hw: Size | None = None,
    weights: str | Path | None = None,
    trust: bool = False,
    on_compile: Callable[[], None] | None = None,
    notice: Callable[[str], None] | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Detector:
    """The detector of a model card, or of a model file. It is compiled when the first image comes, for that size.

    Args:
        name: a card's name, the path of a folder with a `card.toml`, an exported model that says what it is, or any
            `.tflite` or SavedModel whose outputs are boxes, classes and scores (`detector_from_file`); None is
            `default_detector()`.
        runtime: as `visionkit.runtime.compile_model` takes it; `auto` measures.
        precision: of the arithmetic, `float32` unless less is asked for.
        threads: cores to use; None is all that the process may use.
        batch: images in one call of the network.
        instances: how often the network is held, so that as many threads of the caller can be inside it; None shares
            the cores out as a stream of images goes fastest.
        size_hw: of the input, in the place of the card's; of a card of `shortest_side` the shorter side and the limit
            of the longer one, in either order.
        weights: a file with weights for the card's network in the place of the card's own.
        trust: a model file may run code (SavedModel) or crash (`.tflite`).
        on_compile: called before the network is built, compiled and measured, which takes seconds and happens once.
        notice, progress: of a download, where the weights are not on this machine (`visionkit.weights.obtain`).
        options: `conf`, `iou`, `classes`, `max_det`, `masks` (`DetectOptions`) in the place of the card's.

    Raises:
        ModelError: there is no such card or no weights, or they do not fit.
        RecipeError: the card names an option that a detector does not have.
        UsageError: `class-unknown`.
    """
    if batch < 1:
        raise ValueError(f"`batch` must be a positive integer. Received: batch={batch!r}.")
    how: dict[str, Any] = {"runtime": runtime, "precision": precision, "threads": threads}
    if name is not None and is_model_file(name):
        from visionkit.tasks.detect_file import detector_from_file

        if size_hw is not None or weights is not None or instances not in (None, 1) or batch != 1:
            raise UsageError(
                "option-unfit",
                "A model file has its size and its weights in it, held once; leave size_hw, weights, instances and "
                "batch out.",
            )

        return detector_from_file(name, trust=trust, **how, **options)
    card, artifact = card_of(default_detector() if name is None else name, "detect")
    one_size(artifact, size_hw)
    chosen = options_of(card, artifact, options, _options)
    with described(artifact):
        rule = InputRule.from_card(card, size_hw)
        _decoding(card.network, {**card.args, "size_hw": rule.size_hw})
    Detector(DetectNetwork(_never), rule, chosen, labels=card.labels)  # refuse unknown classes before a download
    if artifact is not None and is_served(artifact):
        return served_detector(artifact, rule, chosen, **how)
    telling: dict[str, Any] = {"on_build": on_compile, "notice": notice, "progress": progress}
    made: dict[str, Any] = {"weights": weights, "arguments": class_arguments(card), "trust": trust}
    network = network_of(card, artifact, **made, **telling)
    if instances is None:
        how["threads"], instances = shares(network.bytes, threads)
    if runtime == "keras":  # on a GPU, a second one would wait for the first
        instances = 1
    count = instances

    def compile_size(input_hw: Size, known: str | None) -> Sequence[DetectEngine]:
        part = network.with_arguments(size_hw=input_hw)
        return _engines(part, count, batch=batch, **{**how, "runtime": known or runtime})

    compiled = DetectNetwork(compile_size, batch=batch)
    if artifact is not None:
        engines = compile_size(rule.size_hw, None)
        compiled = DetectNetwork(lambda size, known: engines, batch=engines[0].batch)
        compiled.prepare(rule.size_hw)
    detector = Detector(compiled, rule, chosen, labels=card.labels)
    detector.model = {"name": card.name, "sha256": network.sha256}
    return detector


def default_detector() -> str:
    """The card that is taken where none is named: of everyday things, whatever else comes with VisionKit."""
    return DEFAULT_DETECTOR


def _engines(part: Network, count: int, **how: Any) -> list[DetectEngine]:
    """So many instances of a network of one size; `how` is runtime, precision, threads and batch."""
    first = _engine(part, how)
    others = count - 1 if first.runtime != "keras" else 0
    again = {**how, "runtime": first.runtime}
    return [first, *(_engine(part, again) for _ in range(others))]


def _engine(part: Network, how: Mapping[str, Any]) -> DetectEngine:
    rule = _decoding(part.card.network, part.arguments)
    if isinstance(rule, RCNNRule):
        return _two_stage(part, rule, how)
    from visionkit.tasks.ssd import SSDEngine

    return SSDEngine(part.compiled(**how), rule)


def _decoding(network: str, arguments: Mapping[str, Any]) -> SSDRule | RCNNRule:
    """How a network's answer becomes boxes.

    Raises:
        ModelError: `network-unfit`; it is of no family of detectors.
    """
    if network in RCNN_RULES:
        return rcnn_rule(network, arguments.get("rule"))
    if network.startswith("ssd"):
        return SSDRule.of_network(arguments)
    raise ModelError("network-unfit", f"{network} is no detector that VisionKit runs.")


def _two_stage(part: Network, rule: RCNNRule, how: Mapping[str, Any]) -> DetectEngine:
    """The parts of a network of the R-CNN family, compiled in one runtime, as an engine."""
    from visionkit.tasks.rcnn import MASK_ROWS, RCNNPipeline, RCNNRunners, box_rows

    def piece(which: str) -> Callable[[keras.Model], keras.Model]:
        def cut(model: keras.Model) -> keras.Model:
            from visionkit.nets.rcnn import rcnn_parts

            found: keras.Model = getattr(rcnn_parts(model), which)
            return found

        return cut

    trunk = part.compiled("trunk", piece("trunk"), **how)
    runners = [trunk]
    try:
        same = {**how, "runtime": trunk.name}  # the heads are small beside it: its winner is good enough
        runners.append(part.compiled("box_head", piece("box_head"), **{**same, "batch": box_rows(rule)}))
        if part.card.network.startswith("mask"):
            runners.append(part.compiled("mask_head", piece("mask_head"), **{**same, "batch": MASK_ROWS}))
    except BaseException:
        for runner in runners:
            runner.close()
        raise
    return RCNNPipeline(RCNNRunners(*runners), rule)


def class_arguments(card: Card) -> dict[str, int]:
    """How many classes the card's network is to be built for, as its argument; none where the card says it."""
    return {} if "classes" in card.args or not card.labels else {"classes": _class_count(card.labels)}


def _class_count(labels: Sequence[str]) -> int:
    """Of the network, background included, which the labels may leave out."""
    return len(labels) + (labels[0].strip().casefold() not in BACKGROUND_NAMES)


def _never(size_hw: Size, runtime: str | None) -> Sequence[DetectEngine]:
    raise RuntimeError("this network is not run")


def _options(card: Card, given: Mapping[str, Any]) -> DetectOptions:
    values = {**card.options, **given}
    known = {field.name for field in dataclasses.fields(DetectOptions)}
    if unknown := set(values) - known:
        raise RecipeError(
            "unknown-option",
            f"{card.name}: {', '.join(sorted(unknown))} is no option of this detector. "
            f"Known: {', '.join(sorted(known))}.",
        )
    return DetectOptions(**values)

"""What the networks of an artifact get as inputs when its task runs on the calibration's images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from visionkit.compress.calibration_checks import checked
from visionkit.compress.graft import found_inputs
from visionkit.errors import ModelError, UsageError
from visionkit.runtime.base import Array, TensorSpec
from visionkit.runtime.litert import open_litert
from visionkit.runtime.tflite_watch import Feed, watch_tensors
from visionkit.tasks.input_rule import InputRule

if TYPE_CHECKING:
    from visionkit.compress.calibration import Calibration
    from visionkit.weights.artifact import Artifact

__all__ = ["checked_feeds", "network_feeds"]

DEFAULT = "serving_default"
SMALLEST = 16  # side of what is an image; a smaller (1, h, w, 1) is a map


def network_feeds(artifact: Artifact, parts: Mapping[str, bytes], calibration: Calibration) -> dict[str, list[Feed]]:
    """As `checked_feeds`, without what could not be told."""
    return checked_feeds(artifact, parts, calibration)[0]


def checked_feeds(
    artifact: Artifact, parts: Mapping[str, bytes], calibration: Calibration
) -> tuple[dict[str, list[Feed]], str]:
    """Inputs by signature of each network, after the calibration was checked.

    A network that takes an image gets what the card's rule makes of the calibration's. One that takes what another
    network gives (a tracker's search) gets that. One that takes something else (the boxes' features of an R-CNN) gets
    what reaches it inside `serving_default` on the same images. What was recorded while the task ran is taken as it is.

    Args:
        artifact: the float one.
        parts: its signatures (`split_signatures`).
        calibration: images, or inputs for the networks that take an image; or feeds of all of them.

    Returns:
        The inputs, and why the order of the calibration's channels could not be judged; empty where it could.

    Raises:
        UsageError: `calibration-…`, what the checks found; `calibration-unfit`, the network needs images.
        ModelError: `model-unfit`; nobody knows what a network is fed with.
    """
    names = [name for name in dict.fromkeys(artifact.parts.values()) if name in parts]
    if calibration.feeds:
        return {name: [dict(feed) for feed in calibration.feeds[name]] for name in names}, ""
    specs = {name: _specs(parts[name]) for name in names}
    feeds: dict[str, list[Feed]] = {}
    unjudged: list[str] = []
    for name in names:
        if _takes_image(specs[name]):
            feeds[name], why = _image_feeds(artifact, parts[name], specs[name][0], calibration)
            unjudged.append(why)
    for name in names:
        if name not in feeds:
            feeds[name] = _chained(artifact, name, specs, parts, calibration)
            feeds[name] = feeds[name] or _served(artifact, parts, name, calibration)
    return feeds, unjudged[0] if unjudged and all(unjudged) else ""


def _specs(content: bytes) -> list[TensorSpec]:
    with open_litert(content, threads=1) as runner:
        return list(runner.inputs.values())


def _takes_image(specs: Sequence[TensorSpec]) -> bool:
    return len(specs) == 1 and _is_image(specs[0])


def _is_image(spec: TensorSpec) -> bool:
    sides = [side or 0 for side in spec.shape[1:3]]
    return len(spec.shape) == 4 and spec.shape[-1] in (1, 3) and min(sides) >= SMALLEST and spec.dtype == np.float32


def _rule(artifact: Artifact, spec: TensorSpec) -> InputRule:
    """The card's rule, at the size of the network's input."""
    height, width, channels = (int(side or 0) for side in spec.shape[1:])
    given = dict(artifact.card.input)
    given.setdefault("resize", "stretch")
    given["size_hw"] = given.get("size_hw", (height, width))
    rule = InputRule.from_card(dataclasses.replace(artifact.card, input=_known_keys(given)), (height, width))
    return dataclasses.replace(rule, channel_order="gray") if channels == 1 else rule


def _known_keys(given: Mapping[str, Any]) -> dict[str, Any]:
    known = ("size_hw", "resize", "preset", "mean", "std", "channel_order", "resize_size")
    return {key: value for key, value in given.items() if key in known}


def _image_feeds(
    artifact: Artifact, content: bytes, spec: TensorSpec, calibration: Calibration
) -> tuple[list[Feed], str]:
    rule = _rule(artifact, spec)
    unjudged = ""
    if not calibration.trusted:
        with open_litert(content, threads=1) as runner:
            told = checked(
                calibration.given,
                rule,
                network=lambda array: runner(**{spec.name: array}),
                reference=calibration.reference,
            )
        for found in told.findings:
            raise UsageError(f"calibration-{found.slug}", f"the calibration is at fault: {found.message}")
        unjudged = told.unjudged
    batch = int(spec.shape[0] or 1)
    inputs = calibration.network_inputs(rule)
    return [{spec.name: np.repeat(array, batch, axis=0)} for array in inputs], unjudged


def _chained(
    artifact: Artifact,
    name: str,
    specs: Mapping[str, Sequence[TensorSpec]],
    parts: Mapping[str, bytes],
    calibration: Calibration,
) -> list[Feed]:
    """Feeds of a network that takes an image and what another made of one: an object, and the region to find it in.

    The other network gets the middle of the region. What neither tells is as in the artifact's probes.
    """
    images = [spec for spec in specs[name] if _is_image(spec)]
    probes = artifact.probes()
    rest = {spec.name: probes.get(f"raw/{name}/{spec.name}/0") for spec in specs[name] if spec not in images}
    givers = [giver for giver in specs if giver != name and _takes_image(specs[giver])]
    if len(images) != 1 or not givers or not calibration.images:
        return []
    rule, side = _rule(artifact, images[0]), int(specs[givers[0]][0].shape[1] or 0)
    first = [(length - side) // 2 for length in rule.size_hw]
    feeds: list[Feed] = []
    with open_litert(parts[givers[0]], threads=1) as runner:
        for region in calibration.network_inputs(rule):
            inner = region[:, first[0] : first[0] + side, first[1] : first[1] + side]
            made = runner(**{specs[givers[0]][0].name: np.ascontiguousarray(inner)})
            feed = {images[0].name: region, **{key: made.get(key, value) for key, value in rest.items()}}
            if any(value is None for value in feed.values()):
                return []
            feeds.append({key: value for key, value in feed.items() if value is not None})
    return feeds


def _served(artifact: Artifact, parts: Mapping[str, bytes], name: str, calibration: Calibration) -> list[Feed]:
    """What reaches the network inside `serving_default`."""
    if DEFAULT not in parts or (spec := _specs(parts[DEFAULT])[0]).dtype != np.uint8:
        raise ModelError("model-unfit", f"{artifact.path.name} has no `serving_default` that feeds its {name!r}.")
    if not calibration.images:
        raise UsageError("calibration-unfit", f"the network {name!r} needs images, as it takes no network input.")
    places = found_inputs(parts[DEFAULT], parts[name])
    if places is None:
        raise ModelError("model-unfit", f"`serving_default` of {artifact.path.name} does not contain its {name!r}.")
    rule = _rule(artifact, dataclasses.replace(spec, dtype=np.dtype(np.float32)))
    feeds: list[Feed] = []
    seen: dict[str, Array] = {}

    def note(key: str, values: Array) -> None:
        seen[key] = values

    for image in calibration.images:
        pixels = np.repeat(rule.pixels(image)[None, ..., ::-1], int(spec.shape[0] or 1), axis=0)
        watch_tensors(parts[DEFAULT], [{spec.name: np.ascontiguousarray(pixels)}], note)
        feeds.append({key: seen[tensor] for key, tensor in places.items()})
    return feeds

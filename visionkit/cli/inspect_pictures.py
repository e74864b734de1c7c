"""What needs the network itself: dead and saturated units, the first filters, the evidence for a class."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.cli.inspect_request import Request, Subject
from visionkit.errors import ModelError, OutputError, UsageError

if TYPE_CHECKING:
    from visionkit.tasks.input_rule import InputRule

__all__ = ["look_inside", "overlay", "picture_rows"]

Image = npt.NDArray[np.uint8]
MOST_ROWS = 40
STRENGTH = 0.6
RED = 232  # of 255: the map's dark end would make a peak look like a hole


def look_inside(request: Request, subject: Subject) -> dict[str, Any]:
    """The answers to `--activations`, `--filters` and `--explain`, as JSON can hold them."""
    explained = None if request.explain is None else _explained_path(request, request.explain)
    found: dict[str, Any] = {}
    if request.filters:
        found["filters"] = _filters(request.filters, request, subject)
    if request.activations:
        found["activations"] = _activations(request.activations, request, subject)
    if request.explain and explained is not None:
        found["explanation"] = _explanation(request.explain, explained, request, subject)
    return found


def picture_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The same as names and values for a terminal."""
    rows: list[tuple[str, str]] = []
    if "filters" in found:
        filters = found["filters"]
        rows.append(("filters", f"{filters['count']} of {filters['layer']} in {filters['file']}"))
    if "activations" in found:
        rows += _activation_rows(found["activations"])
    if "explanation" in found:
        made = found["explanation"]
        named = f" {made['class_name']}" if made["class_name"] else ""
        rows.append(("explained", f"class {made['class_id']}{named}, logit {made['score']:.2f}, by {made['method']}"
                     f" at {made['layer']}"))  # fmt: skip
        rows.append(("picture", made["file"]))
    return rows


def _activation_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("images", str(found["images"]))]
    for row in found["layers"][:MOST_ROWS]:
        if row["dead"] is not None:
            share = f"{row['dead']} of {row['units']} units dead, {row['zeros']:.0%} of activations 0"
        else:
            share = f"{row['saturated']:.1%} of activations saturated"
        rows.append((row["function"], f"{row['name']}: {share}"))
    if len(found["layers"]) > MOST_ROWS:
        rows.append(("...", f"{len(found['layers']) - MOST_ROWS} more layers; --json has them all"))
    return rows


def _rule(request: Request, subject: Subject) -> InputRule:
    """How an image becomes the network's input: by the card, or by --preset, at the size the table reckons with."""
    from visionkit.tasks.input_rule import InputRule

    if subject.summary is None or len(subject.summary.inputs) != 1:
        raise ModelError("model-unfit", "Activations and explanations need a network with one image as its input.")
    (shape,) = subject.summary.inputs.values()
    if len(shape) != 3 or shape[2] not in (1, 3):
        raise ModelError("model-unfit", f"The network's input {shape} is no image of 1 or 3 channels.")
    size_hw = (int(shape[0] or 0), int(shape[1] or 0))
    if subject.card is not None:
        if subject.card.task == "track":
            raise ModelError("model-unfit", f"{subject.card.name} follows objects; explanations are of classifiers.")
        from visionkit.tasks.load_classify import card_rule

        return card_rule(subject.card, size_hw)
    rule = InputRule.preset(request.preset or "raw", size_hw)
    return dataclasses.replace(rule, channel_order="gray") if shape[2] == 1 else rule


def _filters(out: str, request: Request, subject: Subject) -> dict[str, Any]:
    from visionkit.inspection.filters import filter_grid, first_filters
    from visionkit.tasks.input_rule import InputRule

    if subject.model is None:
        raise ModelError("model-unfit", "There is no Keras network to take filters from.")
    name, kernel = first_filters(subject.model)
    classifies = subject.card is not None and subject.card.task == "classify"
    order = InputRule.from_card(subject.card).channel_order if subject.card is not None and classifies else "rgb"
    if request.preset == "caffe":
        order = "bgr"
    _write(out, filter_grid(kernel, order=order), request)
    return {"file": out, "layer": name, "count": kernel.shape[3], "kernel_hw": list(kernel.shape[:2])}


def _activations(source: str, request: Request, subject: Subject) -> dict[str, Any]:
    from visionkit.inspection.activations import activation_facts

    rule = _rule(request, subject)
    images = 0

    def batches() -> Iterator[npt.NDArray[np.float32]]:
        nonlocal images
        for image in _images(source, request.max_pixels):
            images += 1
            yield rule.batch([image])

    facts = activation_facts(_model(subject), batches())
    if not images:
        raise UsageError("no-images", f"{source!r} holds no image that can be read.")
    return {"images": images, "layers": [dataclasses.asdict(row) for row in facts]}


def _images(source: str, max_pixels: int) -> Iterator[Image]:
    from visionkit.io import open_source

    with open_source(source, max_pixels=max_pixels) as frames:
        for frame in frames:
            yield frame.image


def _explained_path(request: Request, image: str) -> str:
    """Where the picture will be; asked before anything is computed."""
    from visionkit.io import check_output

    out = request.out or f"{Path(image).stem}-explained.png"
    return str(check_output(_png(out), overwrite=request.overwrite, inputs=[image]))


def _explanation(source: str, out: str, request: Request, subject: Subject) -> dict[str, Any]:
    from visionkit.inspection.explain import explain
    from visionkit.io import read_image
    from visionkit.runtime.gradients import gradient

    model, rule = _model(subject), _rule(request, subject)
    image = read_image(source, max_pixels=request.max_pixels)
    tensor = rule(image)
    head, class_id = _class(request.class_name, tensor, subject)
    method = request.method or "gradcam"
    made = explain(model, tensor, class_id, gradient=gradient, method=method, layer=request.layer, head=head)
    _write(out, overlay(image, made.heat, rule.window((image.shape[0], image.shape[1]))), request)
    labels = _labels(subject, head)
    return {
        "file": out,
        "method": method,
        "layer": made.layer,
        "head": head,
        "class_id": class_id,
        "class_name": labels[class_id] if class_id < len(labels) else None,
        "score": made.score,
    }


def _class(text: str | None, tensor: npt.NDArray[np.float32], subject: Subject) -> tuple[str | None, int]:
    """Head and class that are meant; without a word, the class that scores best."""
    from visionkit.inspection.explain import best_class

    head, _, name = (text or "").rpartition(":")
    chosen = head or (next(iter(subject.card.heads)) if subject.card is not None and subject.card.heads else None)
    if text is None:
        return chosen, best_class(_model(subject), tensor, head=chosen)
    if name.isdecimal():
        return chosen, int(name)
    labels = [label.casefold() for label in _labels(subject, chosen)]
    fits = [i for i, label in enumerate(labels) if label == name.casefold()]
    fits = fits or [i for i, label in enumerate(labels) if name.casefold() in label]
    if len(fits) != 1:
        raise UsageError("class-unknown", f"--class {text!r} names {len(fits) or 'no'} classes. {_hint(labels, fits)}")
    return chosen, fits[0]


def _hint(labels: list[str], fits: list[int]) -> str:
    if fits:
        return f"It could be {', '.join(f'{labels[i]} ({i})' for i in fits[:6])}: give the number."
    if labels:
        return "The names are the card's labels; the number will do too."
    return "The model carries no names: give the number."


def _labels(subject: Subject, head: str | None) -> tuple[str, ...]:
    if subject.card is None:
        return ()
    return tuple(subject.card.heads.get(head or "", ())) if subject.card.heads else subject.card.labels


def _model(subject: Subject) -> Any:
    if subject.model is None:
        raise ModelError("model-unfit", "There is no Keras network to look into.")
    return subject.model


def overlay(image: Image, heat: npt.NDArray[np.float32], window: tuple[float, float, float, float]) -> Image:
    """`image` (H, W, 3) BGR under a heat map (h, w) in [0, 1] that lies over the box `window` xyxy.

    What the network did not see is greyed out.
    """
    import cv2

    height, width = image.shape[:2]
    x1, y1, x2, y2 = window
    across = ((np.arange(width) + 0.5 - x1) / (x2 - x1) * heat.shape[1] - 0.5).astype(np.float32)
    down = ((np.arange(height) + 0.5 - y1) / (y2 - y1) * heat.shape[0] - 0.5).astype(np.float32)
    grid_x, grid_y = np.meshgrid(across, down)
    level = cv2.remap(heat, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    colours = cv2.applyColorMap(np.rint(np.clip(level, 0, 1) * RED).astype(np.uint8), cv2.COLORMAP_TURBO)
    # the map hides as much of the image as it has to say; the rest stays as it is, darker
    weight = (STRENGTH * np.clip(level, 0, 1))[..., None]
    blended = image * (0.75 - 0.75 * weight) + np.asarray(colours) * weight
    inside = ((across >= -0.5) & (across <= heat.shape[1] - 0.5))[None, :] & (
        (down >= -0.5) & (down <= heat.shape[0] - 0.5)
    )[:, None]
    grey = np.repeat(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))[..., None], 3, axis=2) * 0.4
    return np.rint(np.where(inside[..., None], blended, grey)).astype(np.uint8)


def _png(path: str) -> str:
    if Path(path).suffix.lower() != ".png":
        raise UsageError(
            "bad-picture", f"Pictures are written as PNG: give a name that ends in .png. Received: {path!r}."
        )
    return path


def _write(path: str, picture: Image, request: Request) -> None:
    import cv2

    from visionkit.io.files import OutputFile, writing_to

    done, data = cv2.imencode(".png", picture)
    if not done:
        raise OutputError("output-unwritable", f"{path!r} could not be encoded as PNG.")
    file = OutputFile(_png(path), overwrite=request.overwrite)
    try:
        with writing_to(path):
            file.temporary.write_bytes(data.tobytes())
        file.publish()
    finally:
        file.discard()

"""A segmentation network with all that is around it, the dense CRF included, as one SavedModel."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.export.folder import new_folder
from visionkit.export.input_graph import SegmentGraph
from visionkit.io.text import safe_text
from visionkit.runtime.quiet import import_keras, import_tensorflow, quiet
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.load_segment import without_resizing
from visionkit.tasks.refine import Refiner
from visionkit.tasks.score_maps import Scores, label_type, spread
from visionkit.tasks.segment_fit import SizeOptions, fit_of

if TYPE_CHECKING:
    import keras

    from visionkit.crf import CRFParams
    from visionkit.layers.dense_crf import DenseCRF

__all__ = ["export_segmenter"]

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SMALLEST = 1e-5  # as `visionkit.crf.unary_from_probs`
CLEAR = 0.05  # a pixel's label is compared where the first two classes are this far apart
LEAST_EQUAL = 0.99  # of those labels
MOST_APART = 0.01  # probabilities, in the mean


def export_segmenter(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    rule: InputRule,
    crf: CRFParams | DenseCRF | None = None,
    labels: Sequence[str] = (),
    probes: Sequence[Image] = (),
    overwrite: bool = False,
) -> Path:
    """Write a SavedModel that plain TensorFlow runs without VisionKit: RGB images in, class maps out.

    Its signature `serving_default` takes `image` uint8 (B, H, W, 3) RGB, of any size, and gives `class_map`
    uint8 (B, H, W) (uint16 for more than 256 classes) and `probabilities` float32 (B, H, W, L), at the images' size;
    `raw` takes the network's input and gives its `logits`. Before it gets its name it is loaded again and must say
    about the probes what `visionkit.tasks.segment` says.

    Args:
        model: a segmentation network, its input normalised images, of a fixed size or open.
        path: the SavedModel's folder.
        rule: how an image becomes the network's input.
        crf: refine by a dense CRF at the images' size, its widths in their pixels: parameters, or a trained layer.
        labels: class names by class id.
        probes: images uint8 (H, W, 3) BGR to try it on; two rendered ones without.
        overwrite: replace what is there.

    Raises:
        OutputError: `exists`, `output-unwritable`, `disk-full`.
        ModelError: `export-backend` where Keras does not run on TensorFlow; `export-untraceable`, where the network
            has open sizes but layers that need them; `export-differs`.
    """
    if import_keras().backend.backend() != "tensorflow":
        raise ModelError(
            "export-backend",
            "only Keras on TensorFlow writes SavedModels; set KERAS_BACKEND=tensorflow, load the weights",
        )
    tf = import_tensorflow()
    program = _Program(model, rule, crf)
    pictures = list(probes) or [_probe(96, 128), _probe(150, 117)]
    with new_folder(path, overwrite=overwrite) as folder:
        with quiet():
            tf.saved_model.save(program.module, str(folder), signatures=program.traced())
            served = tf.saved_model.load(str(folder)).signatures["serving_default"]
        for picture in pictures:
            _compare(served(image=tf.constant(picture[None, ..., ::-1])), program.expected(picture), path)
        _describe(folder, program, labels, pictures[0])
    return Path(path)


class _Program:
    """What is written: the module with the variables, its functions, and what they are to give."""

    def __init__(self, model: keras.Model, rule: InputRule, crf: CRFParams | DenseCRF | None) -> None:
        self.tf = import_tensorflow()
        self.model = without_resizing(model)
        size_hw = tuple(self.model.inputs[0].shape[1:3])
        self.size_hw = None if None in size_hw else (int(size_hw[0]), int(size_hw[1]))
        self.graph, self.rule = SegmentGraph(rule, self.size_hw), rule
        self.classes = int(self.model.output.shape[-1])
        self.layer: Any = _layer(crf)
        self.trained = self.layer is not None and self.layer is crf
        self.params: Any = None if self.trained else crf
        if self.layer is not None and not self.layer.built:
            self.layer.build([(None, None, None, self.classes), (None, None, None, 3)])
        self.module = self.tf.Module()  # owns the variables, without which they would not be saved
        parts = [self.model] if self.layer is None else [self.model, self.layer]
        self.module.kept = [variable.value for part in parts for variable in part.variables]

    def traced(self) -> dict[str, Any]:
        """The functions of the signatures, by name."""
        try:
            return {name: function.get_concrete_function() for name, function in self._functions().items()}
        except (TypeError, ValueError) as error:  # OperatorNotAllowedInGraphError is a TypeError
            # keras 3.15: `ops.image.resize` to the size of another map cannot be traced where that is open
            reason = " ".join(str(error).split())[:200]
            raise ModelError(
                "export-untraceable",
                f"{self.model.name} cannot be traced for inputs {self.model.inputs[0].shape}: {reason}; "
                "build it with a fixed `size_hw`",
            ) from error

    def _functions(self) -> dict[str, Any]:
        tf = self.tf
        images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="image")
        inputs = tf.TensorSpec(self.model.inputs[0].shape, tf.float32, name="inputs")

        def raw(inputs: Any) -> dict[str, Any]:
            return {"logits": self.model(inputs, training=False)}

        self.module.serve = tf.function(self.serve, input_signature=[images])
        self.module.raw = tf.function(raw, input_signature=[inputs])
        return {"serving_default": self.module.serve, "raw": self.module.raw}

    def serve(self, image: Any) -> dict[str, Any]:
        """From images (B, H, W, 3) RGB to the answers."""
        tf = self.tf
        found = self.model(self.graph.inputs(image, False), training=False)
        probs = self.refined(self.graph.logits(found, image), image)
        kind = tf.as_dtype(label_type(self.classes))
        return {"class_map": tf.cast(tf.argmax(probs, axis=-1), kind), "probabilities": probs}

    def refined(self, logits: Any, image: Any) -> Any:
        """Probabilities (B, H, W, L), behind the CRF where there is one."""
        tf = self.tf
        if self.layer is None:
            return tf.nn.softmax(logits)
        if not self.trained:  # a layer wants the logits it was trained on
            logits = tf.math.log(tf.clip_by_value(tf.nn.softmax(logits), SMALLEST, 1.0))
        out = self.layer([logits, image])
        return out if self.layer.output_kind == "marginals" else tf.nn.softmax(out)

    def expected(self, image: Image) -> Floats:
        """The probabilities (H, W, L) by the way that `visionkit.tasks.segment` goes, of an image BGR."""
        size_hw = (image.shape[0], image.shape[1])
        fit = fit_of(self.rule, size_hw, SizeOptions(size_hw=self.size_hw, max_pixels=1 << 40))
        found = np.asarray(self.model(fit.rule(image)[None], training=False), np.float32)[0].transpose(2, 0, 1)
        if fit.content is not None:
            top, bottom, left, right = fit.content
            found = spread(found, fit.rule.size_hw)[:, top:bottom, left:right]
        if self.trained:
            logits = spread(found, size_hw).transpose(1, 2, 0)[None]
            return np.asarray(self.refined(self.tf.constant(logits), self.tf.constant(image[None, ..., ::-1])))[0]
        probs = Scores((found,), size_hw).probs()
        return probs if self.params is None else Refiner(self.params, max_pixels=1 << 40)(probs, image)


def _layer(crf: CRFParams | DenseCRF | None) -> Any:
    from visionkit.layers.dense_crf import DenseCRF

    if crf is None or isinstance(crf, DenseCRF):
        return crf
    return DenseCRF(**dataclasses.asdict(crf), output="marginals", name="crf")


def _compare(served: dict[str, Any], expected: Floats, path: str | os.PathLike[str]) -> None:
    probs, labels = served["probabilities"].numpy()[0], served["class_map"].numpy()[0]
    ordered = np.sort(expected, axis=-1)
    clear = ordered[..., -1] - ordered[..., -2] > CLEAR
    equal = float((labels == expected.argmax(-1))[clear].mean()) if clear.any() else 1.0
    apart = float(np.abs(probs - expected).mean())
    if probs.shape != expected.shape or not equal >= LEAST_EQUAL or not apart <= MOST_APART:
        raise ModelError(
            "export-differs",
            f"'{safe_text(path)}' was not written: loaded again, the SavedModel gives {equal:.2%} of the labels that "
            f"VisionKit gives and probabilities {apart:.4f} apart; at least {LEAST_EQUAL:.0%} and at most {MOST_APART} "
            "were expected",
        )


def _describe(folder: Path, program: _Program, labels: Sequence[str], probe: Image) -> None:
    """What the model is, beside it in `assets.extra`: facts in JSON, and a probe with its answer."""
    extra = folder / "assets.extra"
    extra.mkdir(exist_ok=True)
    rule = {field.name: getattr(program.rule, field.name) for field in dataclasses.fields(program.rule) if field.repr}
    about = {
        "schema": 1,
        "task": "segment",
        "labels": list(labels),
        "classes": program.classes,
        "input": {**rule, "network_hw": program.size_hw, "signature": "uint8 (B, H, W, 3) RGB"},
        "crf": program.layer.get_config() if program.layer else None,
    }
    (extra / "visionkit.json").write_text(json.dumps(about, indent=1, default=str) + "\n", encoding="utf-8")
    image = probe[..., ::-1]
    class_map = program.expected(probe).argmax(-1).astype(label_type(program.classes))
    np.savez_compressed(extra / "probe.npz", image=image, class_map=class_map)


def _probe(height: int, width: int) -> Image:
    """A picture of soft colours, edges and a little noise, uint8 (H, W, 3) BGR."""
    random = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width]
    disc = (y - height / 2) ** 2 + (x - width / 3) ** 2 < (height / 3) ** 2
    levels = np.stack([255 * y / height, 255 * x / width, np.where(disc, 210, 60)], axis=-1)
    return np.clip(levels + random.normal(0, 4, levels.shape), 0, 255).astype(np.uint8)

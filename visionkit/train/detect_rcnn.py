"""What a training of a two-stage detector needs: targets of anchors, sampled regions, and the four losses in one.

Ren, He, Girshick, Sun, Faster R-CNN, NIPS 2015, sections 3.1.2 and 3.1.3; Girshick, Fast R-CNN, ICCV 2015, section 2.3.
Both stages learn at once ("approximate joint training"): nothing is passed back through the places of proposals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from visionkit.geometry.assign import BACKGROUND, assign_anchors, inside_image, sample_balanced
from visionkit.geometry.box_codec import encode_boxes
from visionkit.geometry.detection_rules import RCNNRule
from visionkit.layers.roi_pool import RoIPool
from visionkit.nets.rcnn import rcnn_parts
from visionkit.tasks.detect_network import RawDetections
from visionkit.tasks.rcnn import rule_anchors
from visionkit.train.detect_augment import DetectView
from visionkit.train.detect_loss import box_loss, class_loss, objectness_loss
from visionkit.train.region_sampling import RegionSampling

__all__ = ["RCNNLearner", "RCNNLoss", "RCNNTargets", "freeze_norms"]

Floats = npt.NDArray[np.float32]
ANCHORS, ANCHOR_SHARE = 256, 0.5  # of an image that the first stage learns from, and how many at most are positive
MOST_OBJECTS = 128
NOTHING, IGNORED = -1, -2  # classes of a row of objects that is empty, or does not count
BETA = 1 / 9  # torchvision's joint of smooth L1, in both stages


class RCNNTargets:
    """Targets float32 (A + M, 5) of a view: of each anchor label and deltas, then the objects, class and box.

    An anchor's label is 1 (an object overlaps it by 0.7, or no other as much), 0 (none by 0.3) or -1; of the first two
    256 are drawn, half of them positive if there are so many. Where both edge pixels count (`pixel_offset`), as in the
    published network, anchors across the image's edge do not take part.
    """

    def __init__(self, rule: RCNNRule, size_hw: tuple[int, int], grids: Sequence[tuple[int, int]]) -> None:
        self.anchors = np.concatenate(rule_anchors(rule, size_hw, grids))
        self._rule = rule
        self._usable = inside_image(self.anchors, size_hw) if rule.pixel_offset else None

    def __call__(self, view: DetectView, rng: np.random.Generator) -> Floats:
        """The targets; which anchors count is drawn."""
        out = np.zeros((len(self.anchors) + MOST_OBJECTS, 5), np.float32)
        out[:, 0] = -1
        real = ~view.ignored
        boxes = view.xyxy[real].astype(np.float32)
        matched = assign_anchors(self.anchors, boxes, usable=self._usable)
        if view.ignored.any():
            inside = _mostly_inside(self.anchors, view.xyxy[view.ignored].astype(np.float32))
            matched[inside & (matched == BACKGROUND)] = -2
        positive, negative = sample_balanced(matched, ANCHORS, ANCHOR_SHARE, rng)
        out[positive, 0], out[negative, 0] = 1, 0
        offset = self._rule.pixel_offset
        out[positive, 1:] = encode_boxes(
            boxes[matched[positive]], self.anchors[positive], self._rule.anchor_weights, pixel_offset=offset
        )
        objects = out[len(self.anchors) :]
        chosen = np.flatnonzero(real)[:MOST_OBJECTS]
        passed = np.flatnonzero(~real)[: MOST_OBJECTS - len(chosen)]
        count = len(chosen) + len(passed)
        objects[: len(chosen), 0] = view.class_id[chosen]
        objects[len(chosen) : count, 0] = IGNORED
        objects[:count, 1:] = view.xyxy[np.concatenate([chosen, passed])]
        return out


def _mostly_inside(anchors: Floats, boxes: Floats) -> npt.NDArray[np.bool_]:
    """Whether half of an anchor lies in one of the boxes."""
    a, b = anchors[:, None], boxes[None]
    sides = np.maximum(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0)
    share = sides.prod(axis=-1) / np.maximum((anchors[:, 2:] - anchors[:, :2]).prod(axis=-1), 1e-6)[:, None]
    inside: npt.NDArray[np.bool_] = share.max(axis=1) >= 0.5
    return inside


class RCNNLoss(keras.losses.Loss):
    """Objectness, deltas of anchors, classes and deltas of regions, summed alike, as torchvision does.

    Args:
        anchors: how many the first stage has; `regions` how many the second sees of an image.
        classes: with background.
    """

    def __init__(self, anchors: int, regions: int, classes: int, name: str = "rcnn_loss") -> None:
        super().__init__(name=name, reduction="sum")
        self.anchors, self.regions, self.classes = anchors, regions, classes

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """The loss of targets of anchors (B, A, 5) and of what `RCNNLearner.joined` answers, (B, 5 A + (L + 9) S)."""
        return sum(self.terms(y_true, y_pred).values())

    def terms(self, y_true: Any, y_pred: Any) -> dict[str, Any]:
        """Each of the four by its name."""
        part = self.parts(y_pred)
        labels = ops.cast(y_true[..., 0], "int32")
        positive = ops.equal(labels, 1)
        sampled = ops.sum(ops.cast(labels >= 0, "float32"))
        kinds = ops.reshape(ops.cast(part["labels"], "int32"), (-1,))
        counted = ops.sum(ops.cast(kinds >= 0, "float32"))
        deltas, targets = (ops.reshape(part[name], (-1, 4)) for name in ("deltas", "targets"))
        return {
            "objectness": objectness_loss(ops.reshape(part["objectness"], (-1,)), ops.reshape(labels, (-1,))),
            "anchor_box": box_loss(part["anchor_deltas"], y_true[..., 1:], positive, sampled, beta=BETA),
            "class": class_loss(ops.reshape(part["logits"], (-1, self.classes)), kinds),
            "box": box_loss(deltas, targets, kinds > 0, counted, beta=BETA),
        }

    def parts(self, y_pred: Any) -> dict[str, Any]:
        """The answer taken apart."""
        shapes = {
            "objectness": (self.anchors,),
            "anchor_deltas": (self.anchors, 4),
            "labels": (self.regions,),
            "targets": (self.regions, 4),
            "logits": (self.regions, self.classes),
            "deltas": (self.regions, 4),
        }
        found, start = {}, 0
        for name, shape in shapes.items():
            size = int(np.prod(shape))
            found[name] = ops.reshape(y_pred[:, start : start + size], (-1, *shape))
            start += size
        return found

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"anchors": self.anchors, "regions": self.regions, "classes": self.classes, "name": self.name}


class RCNNLearner:
    """A network of `visionkit.nets.rcnn` as a training sees it.

    Args:
        network: the whole graph, image to boxes; `rule` is its rule.
        regions: S, that the second stage learns from in an image; a quarter of them objects at most.

    Attributes:
        joined: image, size and objects -> one tensor with all that `RCNNLoss` takes.
    """

    def __init__(self, network: keras.Model, rule: RCNNRule, *, classes: int, regions: int = 128) -> None:
        self.network, self.rule, self.classes = network, rule, classes
        self.size_hw = tuple(int(side) for side in network.get_layer("image").output.shape[1:3])
        names = {layer.name for layer in network.layers}
        levels = [k for k in range(len(names)) if f"rpn_objectness_{k}" in names]
        objectness = [network.get_layer(f"rpn_objectness_{k}").output for k in levels]
        deltas = [network.get_layer(f"rpn_deltas_{k}").output for k in levels]
        grids = [(int(x.shape[1]), int(x.shape[2])) for x in objectness]
        self.targets = RCNNTargets(rule, (self.size_hw[0], self.size_hw[1]), grids)
        self.loss = RCNNLoss(len(self.targets.anchors), regions, classes)
        self.accuracy = keras.metrics.MeanMetricWrapper(self._region_accuracy, name="accuracy")
        self.joined = self._joined(objectness, deltas, regions)

    def _joined(self, objectness: list[Any], deltas: list[Any], regions: int) -> keras.Model:
        network = self.network
        objects = keras.Input((MOST_OBJECTS, 5), name="objects")
        # Keras tells the outputs of a layer without their names: boxes (B, R, 4), scores (B, R), count (B,)
        by_rank = {len(x.shape): x for x in keras.tree.flatten(network.get_layer("proposals").output)}
        sampled = RegionSampling(
            regions, weights=self.rule.box_weights, pixel_offset=self.rule.pixel_offset, name="sampled"
        )([by_rank[3], by_rank[1], objects])
        pool = network.get_layer("box_roi_pool")
        again = pool.__class__.from_config({**pool.get_config(), "name": "sampled_pool"})
        features: Any = [network.get_layer(f"feature_{k}").output for k in range(self.rule.roi_maps)]
        if isinstance(pool, RoIPool):  # which takes one map
            (features,) = features
        merge = network.get_layer("box_rois")
        rois = merge.__class__.from_config({**merge.get_config(), "name": "sampled_rois"})
        answer = rcnn_parts(network).box_head(rois(again([features, sampled["boxes"]])))
        chosen = _OfClass(regions, name="own_deltas")([answer["box_deltas"], sampled["labels"]])
        pieces = [
            *(_flat(x, f"flat_objectness_{k}") for k, x in enumerate(objectness)),
            *(_flat(x, f"flat_deltas_{k}") for k, x in enumerate(deltas)),
            sampled["labels"],
            _flat(sampled["targets"], "flat_targets"),
            keras.layers.Reshape((regions * self.classes,), name="flat_logits")(
                _Split(regions, name="split_logits")(answer["class_logits"])
            ),
            chosen,
        ]
        whole = keras.layers.Concatenate(axis=-1, name="joined", dtype="float32")(pieces)
        inputs = {"image": network.get_layer("image").output, "valid_hw": network.get_layer("valid_hw").output}
        return keras.Model({**inputs, "objects": objects}, whole, name="joined")

    def packed(self, images: Floats, targets: Floats) -> tuple[dict[str, Floats], Floats]:
        """What `joined` takes, and what the loss takes beside its answer."""
        anchors = len(self.targets.anchors)
        sizes = np.broadcast_to(np.array(self.size_hw, np.float32), (len(images), 2))
        return {"image": images, "valid_hw": sizes, "objects": targets[:, anchors:]}, targets[:, :anchors]

    def answer(
        self, predict: Callable[[Any], Any], images: Floats, targets: Floats, *, conf: float, max_det: int
    ) -> tuple[list[RawDetections], float]:
        """Boxes of each input, and the loss."""
        x, y = self.packed(images, targets)
        loss = float(keras.ops.convert_to_numpy(self.loss(y, np.asarray(predict(x), np.float32))))
        found = self.network.predict_on_batch([x["image"], x["valid_hw"]])
        found = {name: np.asarray(value) for name, value in found.items()}
        raw = []
        for k, count in enumerate(found["count"]):
            keep = np.flatnonzero(found["scores"][k, :count] >= conf)[:max_det]
            parts = (found[name][k, keep] for name in ("boxes", "scores", "class_id"))
            boxes, scores, ids = parts
            raw.append(RawDetections(boxes, scores, ids.astype(np.int64)))
        return raw, loss

    def _region_accuracy(self, y_true: Any, y_pred: Any) -> Any:
        """Fraction of the sampled regions with an object whose largest logit is their class's."""
        part = self.loss.parts(y_pred)
        labels = ops.cast(part["labels"], "int32")
        positive = ops.cast(labels > 0, "float32")
        right = ops.cast(ops.equal(ops.cast(ops.argmax(part["logits"], axis=-1), "int32"), labels), "float32")
        return ops.sum(positive * right) / ops.maximum(ops.sum(positive), 1.0)


def freeze_norms(network: keras.Model) -> None:
    """Let batch normalisations keep the numbers they have, as is customary from trained weights with few images."""
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def _flat(x: Any, name: str) -> Any:
    return keras.layers.Reshape((int(np.prod(x.shape[1:])),), name=name, dtype="float32")(x)


class _Split(keras.layers.Layer):
    """(B * S, C) -> (B, S, C)."""

    def __init__(self, regions: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.regions = regions

    def call(self, x: Any) -> Any:
        """The rows of each image."""
        return ops.reshape(x, (-1, self.regions, x.shape[-1]))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, S, C)."""
        return None, self.regions, input_shape[-1]


class _OfClass(keras.layers.Layer):
    """Deltas (B * S, 4 L) and labels (B, S) -> the deltas of each one's class (B, 4 S)."""

    def __init__(self, regions: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.regions = regions

    def call(self, inputs: Any) -> Any:
        """Of background and of what does not count those of class 0."""
        deltas, labels = inputs
        classes = deltas.shape[-1] // 4
        kinds = ops.maximum(ops.cast(labels, "int32"), 0)
        rows = ops.reshape(deltas, (-1, self.regions, classes, 4))
        chosen = ops.one_hot(kinds, classes, dtype=rows.dtype)[..., None]
        return ops.reshape(ops.sum(rows * chosen, axis=2), (-1, 4 * self.regions))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """(B, 4 S)."""
        return None, 4 * self.regions

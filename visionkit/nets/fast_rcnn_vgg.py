"""Fast and Faster R-CNN on VGG-16 as published: one map of stride 16, RoI pooling, two fully connected layers.

Girshick, Fast R-CNN, ICCV 2015; Ren, He, Girshick, Sun, Faster R-CNN, NIPS 2015; what the papers leave open is as in
py-faster-rcnn (models/pascal_voc/VGG16/faster_rcnn_end2end/test.prototxt, lib/rpn, lib/fast_rcnn). The input is BGR
less the mean (102.9801, 115.9465, 122.7717), shorter side 600, longer one at most 1000. A checkpoint of VGG-16 fills
the convolutions and the first two fully connected layers (`load_torchvision(…, skip_head=True)`). The smallest proposal
is of 16 pixels of the input, where py-faster-rcnn scales the 16 as it scaled the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers

from visionkit.geometry.detection_rules import RCNNRule, rcnn_rule
from visionkit.layers.boxes import Anchors, BoxDecode
from visionkit.layers.objectness import Objectness
from visionkit.layers.proposals import ProposalSelection
from visionkit.layers.region_heads import ForegroundProbabilities, MergeRegions, SplitRegions
from visionkit.layers.roi_pool import RoIPool
from visionkit.layers.suppression import NonMaximumSuppression
from visionkit.nets.blocks import dense, image_input, layer_name
from visionkit.nets.vgg import STAGES_16, UNITS, vgg_stages

__all__ = ["STRIDE", "fast_rcnn_vgg16", "fasterrcnn_vgg16", "published_proposal_head"]

STRIDE = 16
RPN_CHANNELS = 512
SCORE_DEVIATION, BOX_DEVIATION = 0.01, 0.001  # of the first weights

Rule = RCNNRule | Mapping[str, Any] | None


def fasterrcnn_vgg16(
    *, classes: int = 21, size_hw: tuple[int, int] = (608, 1008), dropout: float = 0.5, rule: Rule = None
) -> keras.Model:
    """Faster R-CNN: `image` float32 (B, H, W, 3) and `valid_hw` (B, 2) -> `boxes`, `scores`, `class_id`, `count`.

    The results are those of `nets.rcnn.rcnn`, as are the names by which `rcnn_parts` cuts trunk and head out of it.

    Args:
        classes: L, background included, which is class 0.
        size_hw: of the input, multiples of 16; the image lies at its top left, `valid_hw` tells how large it is.
        dropout: rate behind each fully connected layer.
        rule: in the place of the network's own (`geometry.detection_rules`), or names and values that differ from it.

    Raises:
        ValueError: an argument out of its range.
    """
    name = "fasterrcnn_vgg16"
    chosen = _rule(name, rule)
    image, valid, feature = _trunk(name, classes, size_hw)
    objectness, deltas = published_proposal_head(feature, chosen.anchors)
    objectness = layers.Identity(name="rpn_objectness_0")(objectness)
    deltas = layers.Identity(name="rpn_deltas_0")(deltas)
    anchors = Anchors(chosen.cells()[0], name="anchors_0")([objectness, image])
    select = ProposalSelection(
        chosen.pre_nms,
        chosen.post_nms,
        nms=chosen.proposal_nms,
        min_size=chosen.proposal_min_size,
        score=chosen.proposal_score,
        weights=chosen.anchor_weights,
        delta_clip=chosen.delta_clip,
        pixel_offset=chosen.pixel_offset,
        name="proposals",
    )
    found = select([[objectness], [deltas], [anchors], valid])
    results = _detections(feature, found["boxes"], found["count"], valid, (classes, dropout, chosen))
    return keras.Model([image, valid], results, name=name)


def fast_rcnn_vgg16(
    *,
    classes: int = 21,
    size_hw: tuple[int, int] = (608, 1008),
    boxes: int = 2000,
    dropout: float = 0.5,
    rule: Rule = None,
) -> keras.Model:
    """Fast R-CNN: as `fasterrcnn_vgg16`, but the proposals are inputs, `proposals` (B, R, 4) and `count` int32 (B,).

    Args:
        classes, size_hw, dropout, rule: see `fasterrcnn_vgg16`.
        boxes: R; of these the first `count` are there, xyxy in pixels of the input, what is behind means nothing.

    Raises:
        ValueError: an argument out of its range.
    """
    name = "fast_rcnn_vgg16"
    if isinstance(boxes, bool) or not isinstance(boxes, int) or boxes < 1:
        raise ValueError(f"`boxes` must be a positive integer. Received: boxes={boxes!r}.")
    chosen = _rule(name, rule)
    image, valid, feature = _trunk(name, classes, size_hw)
    proposals = keras.Input((boxes, 4), name="proposals")
    count = keras.Input((), name="count", dtype="int32")
    results = _detections(feature, proposals, count, valid, (classes, dropout, chosen))
    return keras.Model([image, valid, proposals, count], results, name=name)


def published_proposal_head(feature: Any, anchors: int = 9) -> tuple[Any, Any]:
    """Objectness (B, h, w, A) and deltas (B, h, w, 4 A) of a map: 3x3 to 512, then 1x1 to two scores and four deltas.

    Ren et al., section 3.1; of VGG-16's map and nine anchors 2,387,510 parameters.
    """
    x = _conv(RPN_CHANNELS, 3, "rpn.conv")(feature)
    x = layers.ReLU(name="rpn.relu")(x)
    scores = _conv(2 * anchors, 1, "rpn.cls_score")(x)
    return Objectness(name="rpn.objectness")(scores), _conv(4 * anchors, 1, "rpn.bbox_pred")(x)


def _rule(name: str, rule: Rule) -> RCNNRule:
    return rule if isinstance(rule, RCNNRule) else rcnn_rule(name, rule)


def _trunk(name: str, classes: int, size_hw: tuple[int, int]) -> tuple[Any, Any, Any]:
    """The inputs and the map of the last convolution, (B, H / 16, W / 16, 512)."""
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise ValueError(f"`classes` must be an integer of at least 2, with background. Received: classes={classes!r}.")
    image = image_input(name, size_hw, minimum=STRIDE, fixed=True)
    if any(side % STRIDE for side in size_hw):
        raise ValueError(f"`size_hw` must be multiples of {STRIDE} for {name}. Received: size_hw={size_hw!r}.")
    x = vgg_stages(image, STAGES_16, last_pooling=False)[-1]
    return image, keras.Input((2,), name="valid_hw"), layers.Identity(name="feature_0")(x)


def _conv(filters: int, kernel: int, name: str) -> Any:
    start = keras.initializers.RandomNormal(stddev=SCORE_DEVIATION)
    return layers.Conv2D(filters, kernel, padding="same", kernel_initializer=start, name=layer_name(name))


def _detections(feature: Any, boxes: Any, count: Any, valid: Any, how: tuple[int, float, RCNNRule]) -> dict[str, Any]:
    """`boxes` (B, K, 4), `scores`, `class_id` (B, K), `count` (B,), best first, zeros behind."""
    classes, dropout, rule = how
    pooled = RoIPool(rule.roi_side, scale=1 / STRIDE, name="box_roi_pool")([feature, boxes])
    logits, changes = _box_head(MergeRegions(name="box_rois")(pooled), classes, dropout)
    logits = SplitRegions(boxes.shape[1], name="class_logits")(logits)
    changes = SplitRegions(boxes.shape[1], name="box_deltas")(changes)
    probs = ForegroundProbabilities(name="class_probs")([logits, count])
    options: dict[str, Any] = {"clip": rule.delta_clip, "pixel_offset": rule.pixel_offset, "classes": classes}
    moved = BoxDecode(rule.box_weights, name="moved_boxes", **options)([changes, boxes, valid])
    suppress = NonMaximumSuppression(
        rule.max_det,
        rule.nms,
        score_threshold=rule.score,
        min_size=rule.min_size,
        candidates=max(1000, 10 * rule.max_det),
        pixel_offset=rule.pixel_offset,
        name="detections",
    )
    found = suppress([moved, probs])
    return {name: found[name] for name in ("boxes", "scores", "class_id", "count")}


def _box_head(pooled: Any, classes: int, dropout: float) -> tuple[Any, Any]:
    """Class logits (N, L) and deltas (N, 4 L) of pooled boxes (N, 7, 7, 512): fc6, fc7 and two predictors."""
    x = layers.Flatten(name="roi_heads.flatten")(pooled)
    for name in ("classifier.0", "classifier.3"):
        x = dense(x, UNITS, name=name)
        x = layers.Dropout(dropout, name=f"{name}.dropout")(x)
    predictor = "roi_heads.box_predictor"
    return (
        _predictor(classes, SCORE_DEVIATION, f"{predictor}.cls_score")(x),
        _predictor(4 * classes, BOX_DEVIATION, f"{predictor}.bbox_pred")(x),
    )


def _predictor(units: int, deviation: float, name: str) -> Any:
    start = keras.initializers.RandomNormal(stddev=deviation)
    return layers.Dense(units, kernel_initializer=start, name=layer_name(name))

"""A two-stage detector of a backbone, a pyramid, proposals and heads: the whole graph, and its parts cut out of it.

One graph leads from the image to boxes, for export. Where a network runs on a CPU, selection and pooling are better
done between its parts (`visionkit.tasks.rcnn`), each of which is a plain network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import layers

from visionkit.geometry.anchors import cell_anchors
from visionkit.geometry.detection_rules import RCNNRule, rcnn_rule
from visionkit.layers.boxes import Anchors, BoxDecode
from visionkit.layers.proposals import ProposalSelection
from visionkit.layers.region_heads import ClassMasks, ForegroundProbabilities, MergeRegions, SplitRegions
from visionkit.layers.roi_align import PyramidRoIAlign
from visionkit.layers.suppression import NonMaximumSuppression
from visionkit.nets.blocks import image_input, layer_name
from visionkit.nets.fpn import feature_pyramid
from visionkit.nets.mobilenet_v3 import mobilenet_v3_features
from visionkit.nets.rcnn_heads import box_head, convolutional_box_head, mask_head, proposal_head
from visionkit.nets.resnet import resnet_stages

__all__ = ["MULTIPLE", "RCNNParts", "RCNNPlan", "rcnn", "rcnn_parts"]

MULTIPLE = 32  # of the sides of an input: the stride of the coarsest map of a backbone
MOBILE_MAPS = (13, 16)  # torchvision's choice: the block that makes stride 32, and the last 1x1


class RCNNPlan(NamedTuple):
    """What the networks of this family differ in.

    Args:
        name: of the network, which names its rule as well.
        backbone: `resnet50` or `mobilenet_v3_large`.
        modern: the heads and normalisations of `v2`.
        masks: whether there is a head for masks.
    """

    name: str
    backbone: str = "resnet50"
    modern: bool = False
    masks: bool = False


class RCNNParts(NamedTuple):
    """The networks between which boxes are selected and pooled.

    Args:
        trunk: image (B, H, W, 3) -> `feature_0` …, `rpn_objectness_0` … (B, h, w, A), `rpn_deltas_0` … (B, h, w, 4 A).
        box_head: `rois` (N, 7, 7, C) -> `class_logits` (N, L), `box_deltas` (N, 4 L).
        mask_head: `rois` (N, 14, 14, C) -> `mask_logits` (N, 28, 28, L); None without masks.
    """

    trunk: keras.Model
    box_head: keras.Model
    mask_head: keras.Model | None


def rcnn(
    plan: RCNNPlan,
    *,
    classes: int,
    size_hw: tuple[int, int],
    norm_eps: float = 1e-5,
    rule: RCNNRule | Mapping[str, Any] | None = None,
) -> keras.Model:
    """The network of a plan, from `image` and `valid_hw` to boxes.

    Args:
        plan: backbone and heads.
        classes: L, background included, which is class 0.
        size_hw: of the input, multiples of 32.
        norm_eps: epsilon of all batch normalisations; torchvision's first checkpoints want 0.
        rule: in the place of the network's own, or names and values in which it differs from that.

    Raises:
        ValueError: an argument out of its range.
    """
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise ValueError(f"`classes` must be an integer of at least 2, with background. Received: classes={classes!r}.")
    if not norm_eps >= 0:
        raise ValueError(f"`norm_eps` must be at least 0. Received: norm_eps={norm_eps!r}.")
    image = image_input(plan.name, size_hw, minimum=MULTIPLE, fixed=True)
    if any(side % MULTIPLE for side in size_hw):
        raise ValueError(f"`size_hw` must be multiples of {MULTIPLE} for {plan.name}. Received: size_hw={size_hw!r}.")
    chosen = rule if isinstance(rule, RCNNRule) else rcnn_rule(plan.name, rule)
    return _build(image, plan, chosen, classes, norm_eps)


def _build(image: Any, plan: RCNNPlan, rule: RCNNRule, classes: int, epsilon: float) -> keras.Model:
    """The steps of torchvision's `GeneralizedRCNN`, in tensors of fixed shapes."""
    size_hw = keras.Input((2,), name="valid_hw")
    features, objectness, deltas = _trunk(image, plan, rule, epsilon)
    proposals = _proposals(image, size_hw, objectness, deltas, rule)
    pooled = _pooled("box", features, proposals["boxes"], rule)
    logits, changes = _box_head(pooled, plan, classes, epsilon)
    found = _detections(logits, changes, proposals, size_hw, rule)
    if plan.masks:
        pooled = _pooled("mask", features, found["boxes"], rule)
        masks = mask_head(pooled, classes, normalized=plan.modern, epsilon=epsilon)
        masks = SplitRegions(rule.max_det, name="mask_logits")(masks)
        found["masks"] = ClassMasks(name="masks")([masks, found["class_id"]])
    return keras.Model([image, size_hw], found, name=plan.name)


def _trunk(image: Any, plan: RCNNPlan, rule: RCNNRule, epsilon: float) -> tuple[list[Any], list[Any], list[Any]]:
    """Maps that boxes are pooled from, and of every map objectness and deltas."""
    if plan.backbone == "mobilenet_v3_large":
        every = mobilenet_v3_features(image, prefix="backbone.body.", epsilon=epsilon)
        maps = [every[index] for index in MOBILE_MAPS]
    else:
        maps = resnet_stages(image, plan.backbone, prefix="backbone.body.", epsilon=epsilon)
    pyramid = feature_pyramid(maps, prefix="backbone.fpn.", normalized=plan.modern, epsilon=epsilon)
    objectness, deltas = proposal_head(pyramid, rule.anchors, depth=2 if plan.modern else 1)
    return (
        _named("feature", pyramid[: rule.roi_maps]),
        _named("rpn_objectness", objectness),
        _named("rpn_deltas", deltas),
    )


def _proposals(image: Any, size_hw: Any, objectness: list[Any], deltas: list[Any], rule: RCNNRule) -> dict[str, Any]:
    """`boxes` (B, R, 4), and `count` (B,) of them; zeros behind."""
    anchors = [
        Anchors(cell_anchors(sizes, rule.anchor_ratios), name=f"anchors_{level}")([scores, image])
        for level, (sizes, scores) in enumerate(zip(rule.anchor_sizes, objectness, strict=True))
    ]
    select = ProposalSelection(
        rule.pre_nms,
        rule.post_nms,
        nms=rule.proposal_nms,
        min_size=rule.proposal_min_size,
        score=rule.proposal_score,
        weights=rule.anchor_weights,
        name="proposals",
    )
    found: dict[str, Any] = select([objectness, deltas, anchors, size_hw])
    return found


def _pooled(kind: str, features: list[Any], boxes: Any, rule: RCNNRule) -> Any:
    """Features (B * R, side, side, C) of boxes (B, R, 4)."""
    side = rule.roi_side if kind == "box" else rule.mask_roi_side
    align = PyramidRoIAlign(
        (side, side),
        scales=rule.roi_scales,
        canonical=rule.canonical,
        sampling_ratio=rule.sampling,
        name=f"{kind}_roi_pool",
    )
    return MergeRegions(name=f"{kind}_rois")(align([features, boxes]))


def _detections(logits: Any, changes: Any, proposals: dict[str, Any], size_hw: Any, rule: RCNNRule) -> dict[str, Any]:
    """`boxes` (B, K, 4), `scores`, `class_id` (B, K), `count` (B,), best first, zeros behind."""
    classes, boxes = logits.shape[-1], proposals["boxes"]
    logits = SplitRegions(rule.post_nms, name="class_logits")(logits)
    changes = SplitRegions(rule.post_nms, name="box_deltas")(changes)
    probs = ForegroundProbabilities(name="class_probs")([logits, proposals["count"]])
    moved = BoxDecode(rule.box_weights, classes=classes, name="moved_boxes")([changes, boxes, size_hw])
    suppress = NonMaximumSuppression(
        rule.max_det,
        rule.nms,
        score_threshold=rule.score,
        min_size=rule.min_size,
        candidates=max(1000, 10 * rule.max_det),
        name="detections",
    )
    found = suppress([moved, probs])
    return {name: found[name] for name in ("boxes", "scores", "class_id", "count")}


def _named(name: str, maps: Sequence[Any]) -> list[Any]:
    """The maps under a name each, by which `rcnn_parts` finds them."""
    return [layers.Identity(name=f"{name}_{level}")(x) for level, x in enumerate(maps)]


def _box_head(pooled: Any, plan: RCNNPlan, classes: int, epsilon: float) -> tuple[Any, Any]:
    if plan.modern:
        return convolutional_box_head(pooled, classes, epsilon=epsilon)
    return box_head(pooled, classes)


def rcnn_parts(model: keras.Model) -> RCNNParts:
    """The networks between the steps that select and pool boxes, of the same layers and weights as `model`.

    Args:
        model: from a function of this family, loaded or not.

    Raises:
        ValueError: a model of another family.
    """
    names = {layer.name for layer in model.layers}
    if not {"proposals", "box_rois"} <= names:
        raise ValueError(f"`model` must be a two-stage detector of visionkit.nets. Received: {model.name}.")

    def outputs(kinds: tuple[str, ...]) -> dict[str, Any]:
        known = (f"{kind}_{level}" for kind in kinds for level in range(len(names)))
        return {name: model.get_layer(name).output for name in known if name in names}

    image = model.get_layer("image").output
    trunk = keras.Model(image, outputs(("feature", "rpn_objectness", "rpn_deltas")), name=f"{model.name}_trunk")
    predictor = "roi_heads.box_predictor"
    heads = {"class_logits": f"{predictor}.cls_score", "box_deltas": f"{predictor}.bbox_pred"}
    box = _head(model, "box", {name: layer_name(torch) for name, torch in heads.items()})
    if "mask_rois" not in names:
        return RCNNParts(trunk, box, None)
    mask = _head(model, "mask", {"mask_logits": layer_name("roi_heads.mask_predictor.mask_fcn_logits")})
    return RCNNParts(trunk, box, mask)


def _head(model: keras.Model, kind: str, outputs: dict[str, str]) -> keras.Model:
    """From pooled regions to the outputs of some layers."""
    regions = model.get_layer(f"{kind}_rois").output
    inner = keras.Model(regions, {name: model.get_layer(layer).output for name, layer in outputs.items()})
    rois = keras.Input(regions.shape[1:], name="rois")
    # `call` and not the model itself: the head is then made of the layers, not of a model inside
    return keras.Model(rois, inner.call(rois), name=f"{model.name}_{kind}_head")

"""A two-stage detector on a CPU: its networks in a runtime, and between them selection and pooling in compiled loops.

The order of steps is torchvision's (torchvision/models/detection: rpn.py, roi_heads.py), so that its checkpoints give
its boxes.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from visionkit.crf.compiled import Crew
from visionkit.errors import ModelError
from visionkit.geometry.anchors import shifted_anchors
from visionkit.geometry.box_codec import decode_boxes
from visionkit.geometry.detection_rules import RCNNRule
from visionkit.geometry.nms import class_nms
from visionkit.geometry.roi import pyramid_level, roi_align, roi_pool
from visionkit.resources import cache_dir
from visionkit.tasks.detect_network import Limits, RawDetections

if TYPE_CHECKING:
    from visionkit.runtime import Runner

__all__ = ["MASK_ROWS", "RCNNPipeline", "RCNNRunners", "box_rows", "load_loops"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Maps = Mapping[str, Array]

BOX_ROWS = 250  # pooled boxes that go into the head at once: few calls, and few rows in vain
MASK_ROWS = 10
_LOADING = Lock()


def box_rows(rule: RCNNRule) -> int:
    """The batch to compile the box head for."""
    return min(BOX_ROWS, rule.post_nms)


class RCNNRunners(NamedTuple):
    """The parts of a network (`visionkit.nets.RCNNParts`), compiled; heads for a number of boxes at once.

    Args:
        trunk: `image` (B, H, W, 3) -> `feature_0` …, `rpn_objectness_0` …, `rpn_deltas_0` ….
        box_head: (N, 7, 7, C) -> `class_logits`, `box_deltas`; N is free, `box_rows` goes well.
        mask_head: (M, 14, 14, C) -> `mask_logits`; None without masks.
    """

    trunk: Runner
    box_head: Runner
    mask_head: Runner | None = None


class RCNNPipeline:
    """Inputs in, boxes of the input out: a `DetectEngine`.

    Args:
        runners: the compiled parts. They belong to the pipeline, `close` closes them.
        rule: anchors, codecs, thresholds.
        threads: of the loops between the networks; None is what the trunk has.

    Attributes:
        runtime, precision, threads, batch: of the trunk.
        engine: `numba`, or `numpy` where numba is not installed; the loops then take several times as long.
    """

    def __init__(self, runners: RCNNRunners, rule: RCNNRule, *, threads: int | None = None) -> None:
        trunk = runners.trunk
        self.runners, self.rule = runners, rule
        self.runtime, self.precision = trunk.name, trunk.precision
        self.threads = trunk.threads if threads is None else threads
        self.batch = int(trunk.inputs["image"].shape[0] or 1)
        self._loops = load_loops()
        self.engine = "numpy" if self._loops is None else "numba"
        self._anchors: dict[tuple[Any, ...], list[Floats]] = {}
        self._box_input, self._mask_input = _only_input(runners.box_head), None
        if runners.mask_head is not None:
            self._mask_input = _only_input(runners.mask_head)

    def __call__(self, inputs: Floats, valid_hw: npt.ArrayLike, limits: Limits | None = None) -> list[RawDetections]:
        """What is in each of the inputs float32 (B, H, W, 3), of which `valid_hw` (B, 2) holds an image.

        Args:
            inputs: normalised, the image at the top left, zeros beside and below.
            valid_hw: height and width of the image in each.
            limits: in the place of the rule's; with an `iou` of None the rule's is kept.

        Raises:
            ModelError: `model-not-finite`.
        """
        maps = self.runners.trunk(image=inputs)
        sizes = np.asarray(valid_hw, np.float32).reshape(len(inputs), 2)
        if limits is None:
            limits = Limits(self.rule.score, self.rule.nms, self.rule.max_det)
        shape = (inputs.shape[1], inputs.shape[2])
        return [self._detect(maps, index, shape, size, limits) for index, size in enumerate(sizes)]

    def close(self) -> None:
        """Close the runners."""
        for runner in self.runners:
            if runner is not None:
                runner.close()

    def _detect(self, maps: Maps, index: int, input_hw: tuple[int, int], size: Floats, limits: Limits) -> RawDetections:
        proposals, _ = self.proposals(maps, index, input_hw, size)
        answer = self.classify(maps, index, proposals)
        boxes, scores, classes = self.select(proposals, *answer, size, limits)
        masks = self.masks(maps, index, boxes, classes)
        return RawDetections(boxes, scores, classes, masks)

    def proposals(
        self, maps: Maps, index: int, input_hw: tuple[int, int], size: npt.ArrayLike
    ) -> tuple[Floats, Floats]:
        """The best boxes float32 (R, 4) and their probabilities of input `index`, best first."""
        rule, found, levels = self.rule, [], []
        limit = np.asarray(size, np.float32)[::-1] - rule.pixel_offset
        anchors = self._anchors_of(maps, input_hw)
        for level, base in enumerate(anchors):
            logits = maps[f"rpn_objectness_{level}"][index].reshape(-1)
            _check_finite(logits)
            best = _best(logits, rule.pre_nms)
            deltas = maps[f"rpn_deltas_{level}"][index].reshape(-1, 4)[best]
            boxes = _clipped(self._decoded(deltas, base[best], rule.anchor_weights), limit)
            probs = _sigmoid(logits[best])
            there = _large(boxes, rule.proposal_min_size - rule.pixel_offset) & (probs >= rule.proposal_score)
            found.append((boxes[there], probs[there]))
            levels.append(np.full(int(there.sum()), level))
        boxes, probs, groups = (
            np.concatenate([boxes for boxes, _ in found]),
            np.concatenate([probs for _, probs in found]),
            np.concatenate(levels),
        )
        kept = self._suppressed(boxes, probs, groups, rule.proposal_nms, rule.post_nms)
        return boxes[kept], probs[kept]

    def classify(self, maps: Maps, index: int, proposals: Floats) -> tuple[Floats, Floats]:
        """Class logits (R, L) and deltas (R, 4 L) of proposals (R, 4)."""
        runner, side = self.runners.box_head, self.rule.roi_side
        names = ("class_logits", "box_deltas")
        answer = self._headed(runner, self._box_input, maps, index, proposals, side, names)
        return answer["class_logits"], answer["box_deltas"]

    def select(
        self, proposals: Floats, logits: Floats, deltas: Floats, size: npt.ArrayLike, limits: Limits
    ) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
        """Boxes (K, 4), probabilities (K,) and class ids (K,) that are left, best first."""
        rule = self.rule
        _check_finite(logits)
        probs = _softmax(logits)
        rows, columns = np.nonzero(probs[:, 1:] > limits.conf)
        classes = columns + 1
        scores = probs[rows, classes]
        chosen = deltas.reshape(len(deltas), logits.shape[1], 4)[rows, classes]
        boxes = self._decoded(chosen, proposals[rows], rule.box_weights)
        boxes = _clipped(boxes, np.asarray(size, np.float32)[::-1] - rule.pixel_offset)
        there = _large(boxes, rule.min_size - rule.pixel_offset)
        boxes, scores, classes = boxes[there], scores[there], classes[there]
        iou = rule.nms if limits.iou is None else limits.iou
        kept = self._suppressed(boxes, scores, classes, iou, limits.max_det)
        return boxes[kept], scores[kept], classes[kept].astype(np.int64)

    def masks(self, maps: Maps, index: int, boxes: Floats, classes: npt.NDArray[np.int64]) -> Floats | None:
        """Probabilities (K, m, m) of the object over each box, of its own class; None without a mask head."""
        runner = self.runners.mask_head
        if runner is None or self._mask_input is None:
            return None
        side = self.rule.mask_roi_side
        answer = self._headed(runner, self._mask_input, maps, index, boxes, side, ("mask_logits",))
        logits = answer["mask_logits"]
        return _sigmoid(logits[np.arange(len(classes)), :, :, classes])

    def pool(self, maps: Maps, index: int, boxes: Floats, side: int, out: Floats | None = None) -> Floats:
        """Features float32 (N, side, side, C) of boxes (N, 4), each from the level of its size; into `out` if given."""
        rule = self.rule
        features = [maps[f"feature_{level}"] for level in range(rule.roi_maps)]
        if out is None:
            out = np.empty((len(boxes), side, side, features[0].shape[3]), np.float32)
        levels = pyramid_level(boxes, rule.roi_levels, rule.canonical)
        scales = rule.roi_scales
        if rule.pooling == "max":
            for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
                which = np.flatnonzero(levels == level)
                out[which] = roi_pool(feature[index], boxes[which], (side, side), scale=scale)
            return out
        if self._loops is None:
            for level, (feature, scale) in enumerate(zip(features, scales, strict=True)):
                which = np.flatnonzero(levels == level)
                options: dict[str, Any] = {"scale": scale, "sampling_ratio": rule.sampling}
                out[which] = roi_align(feature[index], boxes[which], (side, side), **options)
            return out
        cells = tuple(_plain(feature) for feature in features)
        given = (cells, index, _plain(boxes), levels, np.asarray(scales, np.float32), rule.sampling)
        with Crew(self.threads) as crew:
            crew.run(self._loops.align_rows, [(*given, *ends, out) for ends in crew.ranges(len(boxes))])
        return out

    def _headed(
        self,
        runner: Runner,
        key: tuple[str, int],
        maps: Maps,
        index: int,
        boxes: Floats,
        side: int,
        names: Sequence[str],
    ) -> dict[str, Array]:
        """What a head says of boxes, which are pooled and looked at as many at a time as it was compiled for."""
        name, rows = key
        pooled = np.zeros((rows, side, side, maps["feature_0"].shape[3]), np.float32)
        parts: list[dict[str, Array]] = []
        for begin in range(0, max(len(boxes), 1), rows):
            some = boxes[begin : begin + rows]
            self.pool(maps, index, some, side, pooled[: len(some)])
            answer = runner(**{name: pooled})
            parts.append({item: answer[item][: len(some)] for item in names})
        return {item: np.concatenate([part[item] for part in parts]) for item in names}

    def _suppressed(self, boxes: Floats, scores: Floats, groups: Array, iou: float, limit: int) -> Array:
        if self.rule.pixel_offset:
            boxes = boxes + np.array([0, 0, 1, 1], np.float32)  # both edge pixels counted
        if self._loops is None:
            return class_nms(boxes, scores, groups, iou, limit=limit)
        order = np.argsort(-scores, kind="stable")
        kept: Array = order[self._loops.suppress(_plain(boxes[order]), groups[order], iou, limit)]
        return kept

    def _decoded(self, deltas: Floats, boxes: Floats, weights: tuple[float, float, float, float]) -> Floats:
        rule = self.rule
        with np.errstate(over="ignore"):  # without a clip a box may be infinite before it is cut
            return decode_boxes(deltas, boxes, weights, clip=rule.delta_clip, pixel_offset=rule.pixel_offset)

    def _anchors_of(self, maps: Maps, input_hw: tuple[int, int]) -> list[Floats]:
        """Of each level (h * w * A, 4); strides are whole numbers of pixels, rounded down, as torchvision's."""
        grids = [maps[f"rpn_objectness_{level}"].shape[1:3] for level in range(len(self.rule.anchor_sizes))]
        key = (input_hw, *grids)
        if key not in self._anchors:
            self._anchors = {key: rule_anchors(self.rule, input_hw, grids)}
        return self._anchors[key]


def rule_anchors(rule: RCNNRule, input_hw: tuple[int, int], grids: Sequence[tuple[int, int]]) -> list[Floats]:
    """The anchors float32 (h * w * A, 4) of each level, for maps of the sizes `grids`."""
    anchors = []
    for cell, grid in zip(rule.cells(), grids, strict=True):
        stride = (input_hw[0] // grid[0], input_hw[1] // grid[1])
        anchors.append(shifted_anchors(cell, grid, stride))
    return anchors


def load_loops() -> ModuleType | None:
    """The compiled loops, or None without numba; what they compile to is kept in the user's cache folder."""
    with _LOADING:
        try:
            config: Any = importlib.import_module("numba.core.config")
        except ImportError:
            return None
        before = config.CACHE_DIR
        try:
            if not before and (folder := cache_dir()) is not None:
                config.CACHE_DIR = str(folder / "numba")
            return importlib.import_module("visionkit.tasks.rcnn_kernels")
        finally:
            config.CACHE_DIR = before


def _only_input(runner: Runner) -> tuple[str, int]:
    """Name of a head's input and how many rows it takes at once."""
    ((name, spec),) = runner.inputs.items()
    rows = spec.shape[0]
    if rows is None:
        raise ValueError(f"a head must be compiled for a fixed number of boxes. Received: {spec}.")
    return name, rows


def _plain(values: Array) -> Array:
    """Writable and contiguous: other arrays are types of their own to numba, for which all would compile again."""
    return values if values.flags.writeable and values.flags.c_contiguous else np.array(values, order="C")


def _best(logits: Array, count: int) -> Array:
    """Indices of the `count` greatest, greatest first, the first of equal ones first."""
    if len(logits) <= count:
        return np.argsort(-logits, kind="stable")
    least = np.partition(logits, len(logits) - count)[len(logits) - count]
    among = np.flatnonzero(logits >= least)
    return among[np.argsort(-logits[among], kind="stable")][:count]


def _check_finite(logits: Array) -> None:
    if not np.isfinite(logits).all():
        raise ModelError("model-not-finite", "the network's answer is not finite (NaN or infinity)")


def _clipped(boxes: Floats, size_wh: Floats) -> Floats:
    return np.clip(boxes, 0, np.concatenate([size_wh, size_wh]))


def _large(boxes: Floats, side: float) -> npt.NDArray[np.bool_]:
    return np.asarray((boxes[:, 2:] - boxes[:, :2] >= side).all(axis=1))


def _softmax(logits: Floats) -> Floats:
    values = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs: Floats = values / values.sum(axis=1, keepdims=True)
    return probs


def _sigmoid(logits: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)

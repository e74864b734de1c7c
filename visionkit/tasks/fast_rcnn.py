"""Fast R-CNN: given boxes in, the same boxes moved and named out; and boxes for it by selective search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.errors import UsageError
from visionkit.structures import Detections
from visionkit.tasks.detect_fit import detect_fit
from visionkit.tasks.detect_network import Limits
from visionkit.tasks.images import checked_size

if TYPE_CHECKING:
    from visionkit.tasks.input_rule import InputRule
    from visionkit.tasks.rcnn import RCNNPipeline

__all__ = ["FastRCNN", "selective_search"]

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

MEAN_BGR = (102.9801, 115.9465, 122.7717)  # py-faster-rcnn's PIXEL_MEANS
SHORT_SIDE, LONG_SIDE = 600, 1000


class FastRCNN:
    """Detections of an image among boxes that come with it (Girshick, Fast R-CNN, ICCV 2015, section 2).

    Args:
        pipeline: the compiled `rcnn_parts` of a `fast_rcnn_vgg16` for inputs of `input_hw`, and its rule.
        input_hw: what the trunk was compiled for.
        rule: how an image goes in; None is the published one (`published_rule`).
    """

    def __init__(self, pipeline: RCNNPipeline, input_hw: tuple[int, int], rule: InputRule | None = None) -> None:
        self._pipeline, self._input_hw = pipeline, input_hw
        self.rule = published_rule(input_hw) if rule is None else rule

    def __call__(self, image: Image, boxes: npt.ArrayLike, *, conf: float | None = None) -> Detections:
        """What is in the boxes (N, 4) xyxy of an image uint8 (H, W, 3) BGR; class ids count the objects from 0.

        Raises:
            ValueError: the image or the boxes are of another shape, or the image does not fit into the input.
        """
        regions = np.asarray(boxes, np.float32)
        if regions.size == 0:
            return Detections.empty()
        if regions.ndim != 2 or regions.shape[1] != 4 or not np.isfinite(regions).all():
            raise ValueError(f"`boxes` must be finite numbers (N, 4). Received: shape={regions.shape}.")
        fit = detect_fit(self.rule, checked_size(image))
        height, width = fit.resized_hw
        if height > self._input_hw[0] or width > self._input_hw[1]:
            raise ValueError(f"An image of {fit.resized_hw} does not fit into the input of {self._input_hw}.")
        inputs = np.zeros((1, *self._input_hw, 3), np.float32)
        fit(image, self.rule, inputs[0, : fit.input_hw[0], : fit.input_hw[1]])
        scale = np.array([width / image.shape[1], height / image.shape[0]] * 2, np.float32)
        maps = self._pipeline.runners.trunk(image=inputs)
        answer = self._pipeline.classify(maps, 0, regions * scale)
        rule = self._pipeline.rule
        limits = Limits(rule.score if conf is None else conf, rule.nms, rule.max_det)
        xyxy, scores, classes = self._pipeline.select(regions * scale, *answer, (height, width), limits)
        return Detections(fit.to_image(xyxy), scores, classes - 1)

    def close(self) -> None:
        """Give the networks' memory back."""
        self._pipeline.close()


def published_rule(input_hw: tuple[int, int] = (SHORT_SIDE, LONG_SIDE)) -> InputRule:
    """py-faster-rcnn's: BGR less its mean; shorter side 600, longer one at most 1000, or what fits in `input_hw`."""
    from visionkit.tasks.input_rule import InputRule

    short, long = min(SHORT_SIDE, *input_hw), min(LONG_SIDE, max(input_hw))
    return InputRule((short, long), "shortest_side", mean=MEAN_BGR, std=(1.0, 1.0, 1.0), channel_order="bgr")


def selective_search(image: Image, *, fast: bool = True, limit: int = 2000) -> Floats:
    """Boxes float32 (N, 4) xyxy of an image uint8 (H, W, 3) BGR, best first, by OpenCV's selective search.

    Uijlings et al., Selective search for object recognition, IJCV 2013.

    Args:
        image: to search.
        fast: the paper's fast strategies, or those of quality, which take some times as long.
        limit: at most so many.

    Raises:
        UsageError: `contrib-missing`: the OpenCV that is installed is without its contrib modules.
    """
    checked_size(image)
    module: Any = getattr(cv2, "ximgproc", None)
    if module is None or not hasattr(module, "segmentation"):
        raise UsageError(
            "contrib-missing",
            "Selective search is in OpenCV's contrib modules, which are not installed: put opencv-contrib-python (or "
            "opencv-contrib-python-headless) in the place of opencv-python, or give proposals from a file.",
        )
    search = module.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(image))
    if fast:
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    found = np.asarray(search.process(), np.float32).reshape(-1, 4)[:limit]
    return np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)  # x, y, width, height

"""Objects cut out of photos with a plain background: the mask of what differs from the picture's border."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["Cutout", "cut_out"]

Image = npt.NDArray[np.uint8]
STEPS = 4  # of GrabCut
LEAST, MOST = 0.03, 0.8  # of the picture that an object may cover


@dataclass(frozen=True)
class Cutout:
    """An object: uint8 (H, W, 3) BGR, and how much of each pixel it covers, uint8 (H, W), 0 to 255.

    `part`, uint8 (H, W), is above 127 where what is covered belongs to the object's class; without, it does everywhere.
    """

    image: Image
    alpha: Image
    part: Image | None = None


def cut_out(photo: Image, *, least: float = LEAST, most: float = MOST) -> Cutout | None:
    """The object in a photo uint8 (H, W, 3) BGR whose background is plain; None where none stands out.

    The colours of the corners and the upper edge are taken for the background, what is far from them in CIE Lab (light
    counts less: shadows) for the object, and GrabCut (Rother, Kolmogorov, Blake, SIGGRAPH 2004) draws the line between.
    The object may leave the picture at any side.

    Args:
        least, most: fractions of the picture; outside of them the answer is None.
    """
    lab = cv2.cvtColor(np.asarray(photo, np.float32) / 255, cv2.COLOR_BGR2Lab)  # L 0 to 100
    difference = _from_border(np.asarray(lab, np.float32))
    level = _otsu(difference)
    sure = difference > 1.25 * level
    maybe = difference > 0.75 * level
    if not least <= float(maybe.mean()) <= most or not sure.any():
        return None
    trimap = np.where(maybe, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    around = np.asarray(cv2.dilate(maybe.astype(np.uint8), np.ones((5, 5), np.uint8)), np.bool_)
    trimap[around & ~maybe] = cv2.GC_PR_BGD
    trimap[np.asarray(cv2.erode(sure.astype(np.uint8), np.ones((3, 3), np.uint8)), np.bool_)] = cv2.GC_FGD
    if not (trimap == cv2.GC_BGD).any() or not (trimap == cv2.GC_FGD).any():
        return None
    behind, before = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    cv2.grabCut(photo.copy(), trimap, (0, 0, 1, 1), behind, before, STEPS, cv2.GC_INIT_WITH_MASK)
    mask = _largest(((trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)).astype(np.uint8))
    if not least <= float(mask.mean()) <= most:
        return None
    return Cutout(photo, np.asarray(cv2.GaussianBlur(mask * 255, (3, 3), 0), np.uint8))


def _from_border(lab: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """How far each pixel is from the background, a plane of colour through the border pixels (light falls off)."""
    height, width = lab.shape[:2]
    y, x = np.mgrid[0:height, 0:width]
    inputs = np.stack([np.ones(lab.shape[:2]), x / width, y / height, (x / width) ** 2, (y / height) ** 2], axis=-1)
    edge = max(2, round(0.06 * min(height, width)))
    border = np.zeros(lab.shape[:2], bool)
    border[:edge] = True
    border[:, :edge] = True
    border[:, -edge:] = True
    keep = border.ravel()
    rows, values = inputs.reshape(-1, 5), lab.reshape(-1, 3).astype(np.float64)
    for _ in range(6):  # what lies off the plane is the object where it leaves the picture
        plane, *_ = np.linalg.lstsq(rows[keep], values[keep], rcond=None)
        off = _length(values - rows @ plane)
        limit = max(4.0, 2.0 * float(np.median(off[keep])))
        keep = border.ravel() & (off < limit)
        if keep.sum() < 40:
            break
    return _length(values - rows @ plane).reshape(height, width).astype(np.float32)


def _length(apart: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.sqrt((0.35 * apart[:, 0]) ** 2 + apart[:, 1] ** 2 + apart[:, 2] ** 2)


def _otsu(values: npt.NDArray[np.float32]) -> float:
    top = float(np.quantile(values, 0.995)) or 1.0
    levels = np.clip(values / top * 255, 0, 255).astype(np.uint8)
    level, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return max(4.0, level * top / 255)


def _largest(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The largest connected part of a mask, small holes in it filled."""
    count, parts, facts, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if count < 2:
        return mask
    part = (parts == 1 + int(facts[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
    holes, inside, sizes, _ = cv2.connectedComponentsWithStats(1 - part, connectivity=4)
    for number in range(1, holes):
        if sizes[number, cv2.CC_STAT_AREA] < 0.003 * mask.size:
            part[inside == number] = 1
    return part

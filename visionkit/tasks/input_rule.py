"""How an image becomes a network's input: resized, its channels ordered, its levels shifted and scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from visionkit.runtime.steps import to_steps
from visionkit.tasks.images import checked_size
from visionkit.tasks.resample import Span, resample

if TYPE_CHECKING:
    from visionkit.runtime import TensorSpec
    from visionkit.weights import Card

__all__ = ["FRAMED", "PRESETS", "InputRule", "Preset"]

Image = npt.NDArray[np.uint8]
Resize = Literal["stretch", "letterbox", "shortest_side", "corner"]
Order = Literal["rgb", "bgr", "gray"]
RESIZES = ("stretch", "letterbox", "shortest_side", "corner")
FRAMED = ("letterbox", "corner")  # the whole image, its aspect kept, with a frame where it does not fill the input
ORDERS = ("rgb", "bgr", "gray")


@dataclass(frozen=True, slots=True)
class Preset:
    """A customary normalisation: (level - mean) / std, levels 0 to 255, channels in `channel_order`."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: Order = "rgb"


PRESETS: MappingProxyType[str, Preset] = MappingProxyType(
    {
        "torch": Preset((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255)),
        "tf": Preset((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),  # rgb / 127.5 - 1
        "caffe": Preset((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), "bgr"),
        "fcn": Preset((104.00699, 116.66877, 122.67892), (1.0, 1.0, 1.0), "bgr"),  # FCN on VGG-16 as published
        "unit": Preset((0.0, 0.0, 0.0), (255.0, 255.0, 255.0)),  # rgb / 255
        "raw": Preset((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),  # the network normalises itself
    }
)


@dataclass(frozen=True, slots=True)
class Steps:
    """How numbers are written as integers: the type, and scale and zero point; without these they are rounded."""

    dtype: np.dtype[Any]
    quantization: tuple[float, int] | None


@dataclass(frozen=True)
class InputRule:
    """A function of an image uint8 (H, W, 3) BGR to a network's input float32 (h, w, 3), or of the type of its `steps`.

    Shrinking averages (`resample`), so that the input is what torchvision's transforms make of the same pixels: on six
    photographs and frames the mean difference from Pillow is 0.06 to 0.16 grey levels and the largest 1, where OpenCV's
    INTER_AREA differs by 0.1 to 1.9 in the mean and INTER_LINEAR by 0.2 to 4.1.

    Args:
        size_hw: height and width of the input.
        resize: `stretch` changes the aspect. `letterbox` fits the image in and fills up with the mean colour, centred;
            `corner` does so with the image at the upper left, its sides rounded down.
            `shortest_side` makes the shorter side `resize_size`, the longer one in proportion (rounded down), and
            cuts `size_hw` out of the middle; where that reaches beyond the image it is black, as in torchvision.
        mean, std: by channel, in the channels' order, for levels of 0 to 255.
        channel_order: of the input; `gray` has one channel and takes the first of mean and std.
        resize_size: the shorter side before the crop; None is the smallest that covers the crop.
        fill: levels BGR (or one grey) around an image that does not fill the input; None is the mean.
        steps: what the numbers are rounded to, where the network takes integers (`encoded`).
    """

    size_hw: tuple[int, int]
    resize: Resize = "stretch"
    mean: tuple[float, ...] = PRESETS["torch"].mean
    std: tuple[float, ...] = PRESETS["torch"].std
    channel_order: Order = "rgb"
    resize_size: int | None = None
    steps: Steps | None = field(default=None, repr=False)
    fill: tuple[int, ...] | None = field(default=None, repr=False)
    _table: npt.NDArray[Any] = field(init=False, repr=False, compare=False)  # (1, 256, C)
    _mean_bgr: Image = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size_hw", tuple(int(side) for side in self.size_hw))
        if len(self.size_hw) != 2 or min(self.size_hw) < 1:
            raise ValueError(f"`size_hw` must be two positive integers. Received: size_hw={self.size_hw}.")
        if self.resize not in RESIZES:
            raise ValueError(f"`resize` must be one of {', '.join(RESIZES)}. Received: resize={self.resize!r}.")
        if self.channel_order not in ORDERS:
            raise ValueError(
                f"`channel_order` must be one of {', '.join(ORDERS)}. Received: channel_order={self.channel_order!r}."
            )
        if self.resize_size is not None and (self.resize_size < 1 or self.resize != "shortest_side"):
            raise ValueError(
                "`resize_size` must be a positive integer, and needs `resize='shortest_side'`. "
                f"Received: resize_size={self.resize_size}, resize={self.resize!r}."
            )
        levels = np.arange(256)[:, None]
        mean, std = np.asarray(self.mean, np.float64), np.asarray(self.std, np.float64)
        if mean.shape != (3,) or std.shape != (3,) or not np.isfinite([mean, std]).all() or not (std > 0).all():
            raise ValueError(
                "`mean` and `std` must be three finite numbers each, `std` above 0. "
                f"Received: mean={self.mean}, std={self.std}."
            )
        with np.errstate(over="ignore"):
            table = ((levels - mean) / std)[:, : self.channels].astype(np.float32)  # (256, C), of exact arithmetic
        if not np.isfinite(table).all():
            raise ValueError(f"`std` must not be that small. Received: mean={self.mean}, std={self.std}.")
        if self.steps is not None:
            table = to_steps(table, self.steps.dtype, self.steps.quantization)
        object.__setattr__(self, "_table", table[None])
        order = self.channel_order
        means = mean[::-1] if order == "rgb" else mean[:1] if order == "gray" else mean
        means = means if self.fill is None else np.asarray(self.fill)
        object.__setattr__(self, "_mean_bgr", np.clip(np.rint(means), 0, 255).astype(np.uint8))

    @classmethod
    def preset(cls, name: str, size_hw: tuple[int, int], **options: Any) -> InputRule:
        """The rule with a customary normalisation: `torch`, `tf`, `caffe`, `unit` (0 to 1) or `raw` (0 to 255)."""
        if name not in PRESETS:
            raise ValueError(f"`name` must be one of {', '.join(PRESETS)}. Received: name={name!r}.")
        preset = PRESETS[name]
        return cls(size_hw, mean=preset.mean, std=preset.std, channel_order=preset.channel_order, **options)

    @classmethod
    def from_card(cls, card: Card, size_hw: tuple[int, int] | None = None) -> InputRule:
        """The rule of a card's `[input]`, at the card's size or at another."""
        given = dict(card.input)
        if (name := given.pop("preset", None)) is not None:
            preset = PRESETS[name]
            given = {"mean": preset.mean, "std": preset.std, "channel_order": preset.channel_order, **given}
        else:
            given = {"mean": PRESETS["raw"].mean, "std": PRESETS["raw"].std, **given}
        rule = cls(
            size_hw=tuple(given["size_hw"]),
            resize=given["resize"],
            mean=tuple(given["mean"]),
            std=tuple(given["std"]),
            channel_order=given.get("channel_order", "rgb"),
            resize_size=given.get("resize_size"),
        )
        return rule if size_hw is None else rule.at(size_hw)

    def at(self, size_hw: tuple[int, int]) -> InputRule:
        """The same rule for another input size; `resize_size` grows with the shorter side."""
        size = self.resize_size
        if size is not None:
            size = max(1, round(size * min(size_hw) / min(self.size_hw)))
        return replace(self, size_hw=size_hw, resize_size=size)

    def encoded(self, spec: TensorSpec) -> InputRule:
        """The rule whose numbers are of the type of a network's input: steps of its scale, looked up in a table.

        They are those nearest to what the rule gives without, at no more cost than that.
        """
        if spec.dtype == np.float32:
            return self
        return replace(self, steps=Steps(spec.dtype, spec.quantization))

    def levels(self) -> InputRule:
        """The rule of a network that does the rest itself: RGB pixels of the size of the input, 0 to 255."""
        raw = PRESETS["raw"]
        fill = tuple(int(level) for level in self._mean_bgr)
        return replace(self, mean=raw.mean, std=raw.std, channel_order="rgb", fill=fill if len(fill) == 3 else fill * 3)

    @property
    def frame(self) -> npt.NDArray[np.float32]:
        """Numbers float32 (C,) of what is around an image that does not fill the input, before any rounding."""
        if self.fill is None:
            return np.zeros(self.channels, np.float32)
        order = np.asarray(self.fill, np.float64)[:: -1 if self.channel_order == "rgb" else 1]
        return ((order - self.mean) / self.std).astype(np.float32)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the input."""
        return self._table.dtype

    @property
    def channels(self) -> int:
        """Of the input: 3, or 1 for `gray`."""
        return 1 if self.channel_order == "gray" else 3

    def __call__(self, image: Image, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """The input float32 (h, w, C) for one image uint8 (H, W, 3) BGR of any size.

        Args:
            image: what was decoded; it is only read.
            out: where to write it, such as one row of a batch; must be C-contiguous.
        """
        return self.normalize(self.pixels(image), out)

    def batch(self, images: Sequence[Image], out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """The inputs float32 (B, h, w, C) for images of any sizes, written into `out` (at least B rows) if given."""
        if out is None:
            out = np.empty((len(images), *self.size_hw, self.channels), self.dtype)
        for image, row in zip(images, out, strict=False):
            self(image, row)
        return out

    def pixels(self, image: Image) -> Image:
        """The input as an image uint8 (h, w, 3) BGR: what the network sees, before its levels are changed."""
        size_hw = checked_size(image)
        if self.resize == "stretch":
            return resample(image, *(Span(n, m, 0, m) for n, m in zip(size_hw, self.size_hw, strict=True)))
        resized = self._resized(size_hw)
        if self.resize in FRAMED:
            fill, part = (
                self._mean_bgr,
                resample(image, *(Span(n, m, 0, m) for n, m in zip(size_hw, resized, strict=True))),
            )
        else:
            starts = [_crop_start(m, c) for m, c in zip(resized, self.size_hw, strict=True)]
            spans = [
                Span(n, m, max(0, s), min(m, s + c))
                for n, m, s, c in zip(size_hw, resized, starts, self.size_hw, strict=True)
            ]
            fill, part = np.zeros(1, np.uint8), resample(image, *spans)
        return _framed(part, self.size_hw, fill, centred=self.resize != "corner")

    def normalize(self, pixels: Image, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Levels of pixels uint8 (h, w, 3) BGR of any size as float32 (h, w, C) in the network's order and scale."""
        if self.channel_order != "bgr":
            code = cv2.COLOR_BGR2RGB if self.channel_order == "rgb" else cv2.COLOR_BGR2GRAY
            pixels = np.asarray(cv2.cvtColor(pixels, code))
        shape = (*pixels.shape[:2], self.channels)
        if out is None:
            out = np.empty(shape, self.dtype)
        if out.shape != shape or out.dtype != self.dtype or not out.flags.c_contiguous:
            raise ValueError(f"`out` must be {self.dtype} {shape}, C-contiguous. Received: {out.dtype} {out.shape}.")
        cv2.LUT(pixels, self._table, dst=out)
        return out

    def window(self, size_hw: tuple[int, int]) -> tuple[float, float, float, float]:
        """The box xyxy of an image of `size_hw` that fills the input; it may reach beyond the image.

        Pixel (x, y) of the input lies at (x1 + x * (x2 - x1) / w, y1 + y * (y2 - y1) / h) of the image.
        """
        if self.resize == "stretch":
            return 0.0, 0.0, float(size_hw[1]), float(size_hw[0])
        ends = []
        for length, resized, crop in zip(size_hw, self._resized(size_hw), self.size_hw, strict=True):
            start = _crop_start(resized, crop) if resized > crop else -((crop - resized) // 2)
            start = 0 if self.resize == "corner" else start
            ends.append((start * length / resized, (start + crop) * length / resized))
        (y1, y2), (x1, x2) = ends
        return x1, y1, x2, y2

    def _resized(self, size_hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width to which an image of `size_hw` is resized before it is cut or filled up."""
        height, width = size_hw
        if self.resize in FRAMED:
            scale = min(self.size_hw[0] / height, self.size_hw[1] / width)
            whole = int if self.resize == "corner" else round
            fitted = [max(1, min(c, whole(n * scale))) for n, c in zip(size_hw, self.size_hw, strict=True)]
            return fitted[0], fitted[1]
        short, long = min(size_hw), max(size_hw)
        side = self.resize_size
        if side is None:
            side = max(-(-c * short // n) for n, c in zip(size_hw, self.size_hw, strict=True))
        other = int(side * long / short)  # torchvision rounds down
        return (side, other) if height <= width else (other, side)


def _crop_start(resized: int, crop: int) -> int:
    """Where torchvision's centre crop begins: half of what is over, halves to the even neighbour."""
    return round((resized - crop) / 2)


def _framed(part: Image, size_hw: tuple[int, int], fill: npt.NDArray[np.uint8], *, centred: bool) -> Image:
    """`part` in the middle of `size_hw`, the odd pixel below or to the right, or at the upper left; the rest filled."""
    height, width = part.shape[:2]
    if (height, width) == size_hw:
        return part
    canvas = np.empty((*size_hw, 3), np.uint8)
    canvas[:] = fill
    top, left = ((size_hw[0] - height) // 2, (size_hw[1] - width) // 2) if centred else (0, 0)
    canvas[top : top + height, left : left + width] = part
    return canvas

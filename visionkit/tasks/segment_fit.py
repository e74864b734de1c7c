"""At which size an image goes into a segmentation network, whole or in tiles."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.tiling import TilePlan

__all__ = ["Fit", "SizeOptions", "fit_of"]

Size = tuple[int, int]

STEP = 32  # sides of inputs change by it, so that many images share few compiled networks
MAX_PASS_PIXELS = 1 << 20  # LR-ASPP's maps of it take 0.1 GiB, those of DeepLabV3-ResNet101 about 1
MAX_IMAGE_PIXELS = 1 << 27
MAX_ASPECT = 8  # of an input: thinner images are squeezed, instead of enlarged beyond measure


@dataclass(frozen=True)
class SizeOptions:
    """The size of inputs, and what is done where it is too large.

    Args:
        size_hw: in the place of the card's; for a card of `shortest_side` exactly this, whatever the aspect.
        short_side: of the input, in the place of the card's.
        native: images keep their own size, but for rounding to multiples of 32.
        max_pixels: an input with more goes in tiles.
        tile: side of a tile; larger inputs go in tiles. None: the largest square within `max_pixels`.
        overlap: of neighbouring tiles in pixels; None is a quarter of the tile.
    """

    size_hw: Size | None = None
    short_side: int | None = None
    native: bool = False
    max_pixels: int = MAX_PASS_PIXELS
    tile: int | None = None
    overlap: int | None = None

    def __post_init__(self) -> None:
        for name in ("short_side", "tile"):
            value = getattr(self, name)
            if value is not None and value < STEP:
                raise ValueError(f"`{name}` must be at least {STEP}. Received: {name}={value}.")
        if self.max_pixels < 4 * STEP * STEP:
            raise ValueError(f"`max_pixels` must be at least {4 * STEP * STEP}. Received: {self.max_pixels}.")
        if sum((self.size_hw is not None, self.short_side is not None, self.native)) > 1:
            raise ValueError("`size_hw`, `short_side` and `native` exclude each other.")
        if self.overlap is not None and not 0 <= self.overlap <= self.tile_side - STEP:
            raise ValueError(
                f"`overlap` must be at least 0 and leave a tile of {self.tile_side} pixels {STEP} of its own. "
                f"Received: overlap={self.overlap}."
            )

    @property
    def tile_side(self) -> int:
        """Side of a square tile, a multiple of 32."""
        side = math.isqrt(self.max_pixels) if self.tile is None else self.tile
        return side // STEP * STEP

    @property
    def tile_overlap(self) -> int:
        """Overlap of neighbours."""
        return self.tile_side // 4 if self.overlap is None else self.overlap


@dataclass(frozen=True)
class Fit:
    """How images of one size go in.

    Args:
        rule: makes the input, of the network's size or, with a plan, of all tiles together.
        content: top, bottom, left and right of the image in the input; None where it fills it.
        plan: of the tiles; None for one pass.
    """

    rule: InputRule
    content: tuple[int, int, int, int] | None = None
    plan: TilePlan | None = None

    @property
    def pass_hw(self) -> Size:
        """Size of the network's input."""
        return self.rule.size_hw if self.plan is None else self.plan.tile_hw


def fit_of(rule: InputRule, size_hw: Size, options: SizeOptions, scale: float = 1.0) -> Fit:
    """How an image of `size_hw` goes in under the rule of a card, `scale` times as large as it else would.

    A card's `shortest_side` means the whole image, its shorter side as the card says, the other one in proportion,
    rounded to the shorter one plus a multiple of 32. (A classifier's crop would lose pixels that want a label.)
    """
    if rule.resize == "letterbox" and not options.native:
        wanted = _scaled(_card_size(rule, options), scale)
        if wanted[0] * wanted[1] <= _limit(options, wanted):
            boxed = replace(rule, size_hw=wanted, resize_size=None)
            return Fit(boxed, _content(boxed, size_hw))
        height, width = boxed_hw(wanted, size_hw)  # too large for one pass: tiles need no frame around the image
        wanted = height, width
    elif options.native:
        wanted = _scaled(size_hw, scale)
    elif rule.resize == "stretch" or options.size_hw is not None:
        wanted = _scaled(_card_size(rule, options), scale)
    else:
        wanted = _in_proportion(size_hw, options.short_side or rule.resize_size or min(rule.size_hw), scale)
    wanted = _bounded(wanted)
    plain = replace(rule, resize="stretch", resize_size=None)
    if wanted[0] * wanted[1] <= _limit(options, wanted) and (not options.native or _on_grid(wanted)):
        return Fit(replace(plain, size_hw=wanted))
    whole = _rounded(wanted)
    side = options.tile_side
    tile = (min(side, whole[0]), min(side, whole[1]))
    if tile == whole:
        return Fit(replace(plain, size_hw=whole))
    return Fit(replace(plain, size_hw=whole), plan=TilePlan(whole, tile, options.tile_overlap, STEP))


def boxed_hw(box_hw: Size, size_hw: Size) -> Size:
    """Height and width of an image of `size_hw` made to fit into a box."""
    scale = min(b / n for b, n in zip(box_hw, size_hw, strict=True))
    height, width = (max(1, round(n * scale)) for n in size_hw)
    return height, width


def _limit(options: SizeOptions, wanted: Size) -> int:
    """Pixels up to which an input is one pass."""
    if options.tile is None or max(wanted) <= options.tile_side:
        return options.max_pixels
    return 0


def _card_size(rule: InputRule, options: SizeOptions) -> Size:
    if options.size_hw is not None:
        return options.size_hw
    if options.short_side is None:
        return rule.size_hw
    ratio = options.short_side / min(rule.size_hw)
    height, width = (max(1, round(side * ratio)) for side in rule.size_hw)
    return height, width


def _scaled(size_hw: Size, scale: float) -> Size:
    return size_hw if scale == 1 else _rounded((round(size_hw[0] * scale), round(size_hw[1] * scale)))


def _in_proportion(size_hw: Size, side: int, scale: float) -> Size:
    if scale != 1:
        side = max(STEP, STEP * round(side * scale / STEP))
    height, width = size_hw
    ratio = min(MAX_ASPECT, max(height, width) / min(height, width))
    other = side + STEP * round((ratio - 1) * side / STEP)
    return (side, other) if height <= width else (other, side)


def _bounded(size_hw: Size) -> Size:
    """Smaller in proportion where it exceeds what memory is meant for."""
    pixels = size_hw[0] * size_hw[1]
    if pixels <= MAX_IMAGE_PIXELS:
        return size_hw
    shrink = math.sqrt(MAX_IMAGE_PIXELS / pixels)
    return max(1, int(size_hw[0] * shrink)), max(1, int(size_hw[1] * shrink))


def _rounded(size_hw: Size) -> Size:
    height, width = (max(STEP, STEP * round(side / STEP)) for side in size_hw)
    return height, width


def _on_grid(size_hw: Size) -> bool:
    return not any(side % STEP for side in size_hw)


def _content(rule: InputRule, size_hw: Size) -> tuple[int, int, int, int] | None:
    """Where a letterboxed image of `size_hw` lies in the input; None where it fills it."""
    (height, width), (fit_h, fit_w) = rule.size_hw, boxed_hw(rule.size_hw, size_hw)
    fit_h, fit_w = min(fit_h, height), min(fit_w, width)
    if (fit_h, fit_w) == (height, width):
        return None
    top, left = (height - fit_h) // 2, (width - fit_w) // 2
    return top, top + fit_h, left, left + fit_w

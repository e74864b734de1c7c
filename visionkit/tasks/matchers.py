"""The Siamese networks as trackers see them: compiled, with images in and candidate boxes or responses out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.geometry.crops import cell_cover
from visionkit.runtime.steps import to_steps

if TYPE_CHECKING:
    from visionkit.runtime import Runner

__all__ = ["BoxMatcher", "CorrelationMatcher", "Target"]

Array = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Target:
    """An object as SiamBox knows it: features (1, k, k, C), and the share of each cell that is object (1, k, k, 1)."""

    features: Array
    cover: Array

    def blended(self, other: Target, share: float) -> Target:
        """This target with `share` of another's looks; the extent stays."""
        return Target((1 - share) * self.features + np.float32(share) * other.features, self.cover)


class _Halves:
    """A network in two compiled halves."""

    def __init__(self, exemplar: Runner, search: Runner) -> None:
        self._exemplar, self._search = exemplar, search
        self._levels = {"exemplar": _Levels(exemplar, "exemplar"), "search": _Levels(search, "search")}
        self.exemplar_size = _side(exemplar, "exemplar")
        self.search_size = _side(search, "search")

    @property
    def runners(self) -> tuple[Runner, Runner]:
        """The two halves, of the exemplar and of the search."""
        return self._exemplar, self._search

    def close(self) -> None:
        """Give the runners' memory back."""
        self._exemplar.close()
        self._search.close()


class BoxMatcher(_Halves):
    """A network with a box head (SiamBox), in two compiled halves.

    Args:
        exemplar: runner of `exemplar` (1, z, z, 3) -> `exemplar_features`.
        search: runner of `exemplar_features`, `exemplar_cover` (1, k, k, 1) and `search` (1, x, x, 3) -> `scores`
            (1, n, n, 1), `ltrb` (1, n, n, 4).
    """

    def __init__(self, exemplar: Runner, search: Runner) -> None:
        super().__init__(exemplar, search)
        cells = int(search.outputs["scores"].shape[1] or 0)
        line = (np.arange(cells, dtype=np.float32) + 0.5) * (self.search_size / cells)
        self._stride = self.search_size // cells
        self._kernel = int(search.inputs["exemplar_cover"].shape[1] or 0)
        self._centers = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2).astype(np.float32)

    def encode(self, exemplar: Image, box: Array) -> Target:
        """What to look for: the object in `box` (4,) xyxy of the exemplar uint8 (z, z, 3) RGB."""
        features = self._exemplar(exemplar=self._levels["exemplar"](exemplar))["exemplar_features"]
        cover = cell_cover(box, self.exemplar_size, cells=self._kernel, stride=self._stride)
        return Target(features, cover[None, ..., None])

    def match(self, target: Target, search: Image) -> tuple[Array, Array]:
        """Scores (K,) in [0, 1] and boxes (K, 4) xyxy in pixels of the search region uint8 (x, x, 3) RGB."""
        found = self._search(
            exemplar_features=target.features, exemplar_cover=target.cover, search=self._levels["search"](search)
        )
        ltrb = found["ltrb"].reshape(-1, 4)
        boxes = np.concatenate([self._centers - ltrb[:, :2], self._centers + ltrb[:, 2:]], axis=1)
        return found["scores"].reshape(-1), boxes


class CorrelationMatcher(_Halves):
    """A network that answers with responses (SiamFC), in two compiled halves.

    Args:
        exemplar: runner of `exemplar` (1, z, z, 3) -> `exemplar_features`.
        search: runner of `exemplar_features` and `search` (1, x, x, 3) -> `response` (1, n, n, 1).
        stride: pixels between neighbouring cells of the response.
    """

    def __init__(self, exemplar: Runner, search: Runner, *, stride: int = 8) -> None:
        super().__init__(exemplar, search)
        self.stride = stride

    def encode(self, exemplar: Image) -> Array:
        """Features of the exemplar uint8 (z, z, 3) RGB."""
        features: Array = self._exemplar(exemplar=self._levels["exemplar"](exemplar))["exemplar_features"]
        return features

    def respond(self, target: object, searches: Image) -> Array:
        """Responses (S, n, n) to the search regions uint8 (S, x, x, 3) RGB."""
        features = np.asarray(target, np.float32)
        found = [
            self._search(exemplar_features=features, search=self._levels["search"](search))["response"][0, ..., 0]
            for search in searches
        ]
        return np.stack(found)


class _Levels:
    """An image uint8 (n, n, 3) as a runner's input (1, n, n, 3): its levels as floats, or looked up as its steps."""

    def __init__(self, runner: Runner, name: str) -> None:
        spec = runner.native[name]
        self._table = None
        if spec.dtype != np.float32:
            self._table = to_steps(np.arange(256, dtype=np.float32), spec.dtype, spec.quantization)

    def __call__(self, image: Image) -> npt.NDArray[Any]:
        return image[None].astype(np.float32) if self._table is None else self._table[image][None]


def _side(runner: Runner, name: str) -> int:
    size = runner.inputs[name].shape[1]
    if size is None:
        raise ValueError(f"The input {name!r} must have a fixed size. Received: {runner.inputs[name]}.")
    return int(size)

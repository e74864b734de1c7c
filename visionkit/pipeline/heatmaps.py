"""The stage that classifies every window of a frame, and the files its maps become."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionkit.errors import OutputError
from visionkit.pipeline.sinks import Sink
from visionkit.pipeline.stage import Item, Stage
from visionkit.structures import Classification, DenseClassification, Frame, MultiClassification

if TYPE_CHECKING:
    from visionkit.io import MediaInfo
    from visionkit.tasks.dense import DenseClassifier

__all__ = ["DenseStage", "HeatClass", "Heatmap", "HeatmapSink"]

HEAT = "heat"  # the key of an item's `Heatmap` in its results
PIXEL_DIGITS = 2


@dataclass(frozen=True)
class HeatClass:
    """Which class a heat map shows.

    Args:
        class_id: of the head's classes.
        head: of a network with several; None is its first.
    """

    class_id: int
    head: str | None = None


@dataclass(frozen=True, eq=False)
class Heatmap:
    """The probability of one class at every place of a grid over an image.

    Args:
        probs: float32 (h, w).
        x, y: float32 (w,) and (h,), centres of the windows, absolute pixels.
        class_id, class_name: whose probability it is.
        head: of a network with several heads, else None.
    """

    probs: npt.NDArray[np.float32]
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    class_id: int
    class_name: str
    head: str | None = None


class DenseStage(Stage):
    """Classifies every window of a frame; keeps the classes of the whole frame and the map of one of them.

    Results: under the stage's name a `Classification` (of several heads a `MultiClassification`), under `heat` a
    `Heatmap`. The maps of all classes can take hundreds of megabytes and go no further.

    Args:
        load: makes the classifier when the source and the outputs have proved good.
        heat: from the loaded classifier to the class that is shown in all frames; None, or where it returns None, each
            frame's most likely class of its first head.
    """

    def __init__(
        self,
        load: Callable[[], DenseClassifier],
        *,
        heat: Callable[[DenseClassifier], HeatClass | None] | None = None,
    ) -> None:
        super().__init__("dense")
        self._load, self._choose = load, heat
        self._classifier: DenseClassifier | None = None
        self._heat: HeatClass | None = None

    def setup(self, info: MediaInfo, first: Frame) -> None:
        """Load the classifier and compile it for the first frame's size."""
        self._classifier = self._load()
        self.class_names = self._classifier.labels or None
        self._heat = self._choose(self._classifier) if self._choose else None
        self._classifier.prepare(first.size_hw)

    def process(self, items: Sequence[Item]) -> None:
        """Classes, heat map and the fields that say what the map is, of each item's image."""
        classifier = self._ready()
        for item in items:
            found = classifier(item.frame.image)
            heads = found if isinstance(found, dict) else {"": found}
            overall: Any = {head: answer.overall for head, answer in heads.items()}
            item.results[self.name] = MultiClassification(overall) if isinstance(found, dict) else overall[""]
            heat = self._heatmap(heads)
            item.results[HEAT] = heat
            item.fields.update(_fields(heat, classifier, next(iter(heads.values()))))

    def describe(self) -> dict[str, Any] | None:
        """What the classifier says about its model."""
        return None if self._classifier is None else dict(self._classifier.describe())

    def settings(self) -> dict[str, Any] | None:
        """Mode, window, stride, size, and whether the map equals the crops, with the reason."""
        return None if self._classifier is None else self._classifier.settings()

    def close(self) -> None:
        """Close the classifier that `setup` loaded."""
        if self._classifier is not None:
            self._classifier.close()

    def _heatmap(self, heads: Mapping[str, DenseClassification]) -> Heatmap:
        wanted = self._heat
        head = next(iter(heads)) if wanted is None or wanted.head is None else wanted.head
        answer = heads[head]
        class_id = _best(answer.overall, answer) if wanted is None else wanted.class_id
        names = self.class_names.get(head, ()) if isinstance(self.class_names, Mapping) else self.class_names or ()
        name = str(names[class_id]) if class_id < len(names) else str(class_id)
        probs = np.ascontiguousarray(answer.probs[..., class_id])
        return Heatmap(probs, answer.x, answer.y, class_id, name, head or None)

    def _ready(self) -> DenseClassifier:
        if self._classifier is None:
            raise RuntimeError("`setup` comes before the first frame.")
        return self._classifier


class HeatmapSink(Sink):
    """Each frame's heat map into `heatmaps/000012.png`: 8 bits, 255 times the probability, one pixel a window."""

    def __init__(self) -> None:
        super().__init__("heatmaps")
        self._written = 0

    def process(self, items: Sequence[Item]) -> None:
        """Write the maps, and name them in their rows."""
        import cv2

        from visionkit.io.files import writing_to

        for item in items:
            heat = item.results.get(HEAT)
            if heat is None:
                continue
            name = f"heatmaps/{item.frame.index:06d}.png"
            good, data = cv2.imencode(".png", np.rint(255 * np.clip(heat.probs, 0, 1)).astype(np.uint8))
            if not good:
                raise OutputError("encode-failed", f"'{name}' could not be encoded as PNG")
            path = self.place(name)
            with writing_to(path):
                path.write_bytes(data.tobytes())
            item.fields["heatmap"] = name
            self._written += 1

    def finish(self) -> dict[str, Any] | None:
        """Name the folder, and say how many maps it holds and what their levels mean."""
        if not self._written:
            return None
        return {"file": "heatmaps", "codec": "png", "frames": self._written, "levels": "255 * probability"}


def _best(overall: Classification, answer: DenseClassification) -> int:
    """The most likely class of the whole image, also where the options keep none."""
    return int(overall.class_id[0]) if len(overall) else int(answer.probs.mean(axis=(0, 1)).argmax())


def _fields(heat: Heatmap, classifier: DenseClassifier, answer: DenseClassification) -> dict[str, Any]:
    """What a row says of its map; lengths (height, width) in pixels of the frame."""
    shown = {"class_id": heat.class_id, "class_name": heat.class_name}
    window = [round(float(n), PIXEL_DIGITS) for n in answer.window_hw]
    ratio = [n / w for n, w in zip(answer.window_hw, classifier.network.grid.window_hw, strict=True)]
    stride = [round(classifier.stride * float(n), PIXEL_DIGITS) for n in ratio]
    head = {} if heat.head is None else {"head": heat.head}
    return {
        "heatmap_class": {**head, **shown},
        "grid": list(heat.probs.shape),
        "stride": stride,
        "window": window,
        "exact": classifier.exact,
    }

"""Classification: images in, their most likely classes out."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.runtime.steps import float_face
from visionkit.structures import Classification, MultiClassification
from visionkit.tasks.compiled import CompiledTask
from visionkit.tasks.input_rule import InputRule
from visionkit.tasks.transform import THETA, TransformRule

if TYPE_CHECKING:
    from visionkit.runtime import Runner

__all__ = ["Answer", "Classifier", "ClassifyOptions", "Labels", "probabilities", "ranked"]

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Answer = Classification | MultiClassification
Labels = tuple[str, ...] | Mapping[str, tuple[str, ...]]
Activation = Literal["softmax", "none"]


@dataclass(frozen=True)
class ClassifyOptions:
    """What of the answer is kept.

    Args:
        topk: at most so many classes of each image.
        conf: only classes of at least this probability.
        classes: only these class ids; None is all. The probabilities stay those over all classes.
    """

    topk: int = 5
    conf: float = 0.0
    classes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.topk < 1 or not 0 <= self.conf <= 1:
            raise ValueError(
                "`topk` must be a positive integer and `conf` in [0, 1]. "
                f"Received: topk={self.topk!r}, conf={self.conf!r}."
            )
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(sorted({int(c) for c in self.classes})))
            if not self.classes or self.classes[0] < 0:
                raise ValueError(f"`classes` must be class ids of at least 0. Received: classes={self.classes!r}.")


class Classifier(CompiledTask):
    """A compiled network of one or several heads, with images of any sizes in and classes out.

    `classifier(image)` is the `Classification` of one BGR image uint8 (H, W, 3), `classifier(images)` the list of those
    of several; a network of several heads, one pass for all, gives a `MultiClassification` each. Images are handed over
    in batches of the size the network was compiled for; a last one that is shorter is filled up.

    Args:
        runner: of one input (B, h, w, C) and an output (B, L), or several of them: one for each head.
        rule: makes the input of an image.
        labels: class names; by head where there are several.
        options: what of the answers is kept.
        heads: the outputs to read, in this order; None is all.
        activation: `softmax` where the network gives logits, `none` where it gives probabilities.
        others: further runners of the same network; as many calls then run side by side.
        transform: where the runner also gives `theta`: what the network's spatial transformer makes of it.

    Attributes:
        batch: images in one call of the network.
        multi: whether answers are `MultiClassification`.
        runners: the instances of the network.
    """

    def __init__(
        self,
        runner: Runner,
        rule: InputRule,
        *,
        labels: Labels = (),
        options: ClassifyOptions | None = None,
        heads: Sequence[str] | None = None,
        activation: Activation = "softmax",
        others: Sequence[Runner] = (),
        transform: TransformRule | None = None,
    ) -> None:
        super().__init__(runner)
        self.transform = transform
        self.runners = tuple(float_face(one) for one in (runner, *others))
        self._idle: queue.SimpleQueue[Runner] = queue.SimpleQueue()
        for each in self.runners:
            self._idle.put(each)
        self.runner, self.activation = self.runners[0], activation
        self.labels = labels
        self.options = options or ClassifyOptions()
        given = [name for name in runner.outputs if transform is None or name != THETA]
        self.heads = tuple(given if heads is None else heads)
        self.multi = len(self.heads) > 1
        (self._input,) = runner.inputs.values()
        self.rule = rule.encoded(self.runner.native[self._input.name])
        self._channels_first = _is_channels_first(self._input.shape, rule.channels)
        expected = (rule.channels, *rule.size_hw) if self._channels_first else (*rule.size_hw, rule.channels)
        if len(self._input.shape) != 4 or self._input.shape[1:] != expected:
            raise ValueError(f"The network must take (B, {expected}). Received: {self._input}.")
        self.batch = int(self._input.shape[0] or 1)
        self._buffers: list[npt.NDArray[Any]] = []

    @property
    def instances(self) -> int:
        """How many calls of the network may run side by side."""
        return len(self.runners)

    @property
    def class_count(self) -> dict[str, int]:
        """Number of classes by head."""
        return {head: max(2, int(self.runner.outputs[head].shape[-1] or 0)) for head in self.heads}

    @overload
    def __call__(self, images: Image) -> Answer: ...
    @overload
    def __call__(self, images: Sequence[Image]) -> list[Answer]: ...
    def __call__(self, images: Image | Sequence[Image]) -> Answer | list[Answer]:
        """The classes of one image, or of each image of a list.

        Raises:
            ValueError: an image is not uint8 (H, W, 3).
            ModelError: `model-not-finite`; the network's answer to an image is no number.
        """
        if isinstance(images, np.ndarray):
            return self([images])[0]
        answers: list[Answer] = []
        for begin in range(0, len(images), self.batch):
            part = images[begin : begin + self.batch]
            with self.inputs() as inputs:
                found = self.infer(self.fill(inputs, part), len(part))
            answers += [self.answer(self.row(found, place)) for place in range(len(part))]
        return answers

    def logits(self, images: Image | Sequence[Image]) -> Any:
        """What the network itself says, float32 (L,) of one image or (N, L) of a list; by head where there are several.

        Nothing is checked, scaled or left out.
        """
        if isinstance(images, np.ndarray):
            found = self.logits([images])
            return {head: values[0] for head, values in found.items()} if self.multi else found[0]
        parts = []
        for begin in range(0, len(images), self.batch):
            part = images[begin : begin + self.batch]
            with self.inputs() as inputs:
                parts.append(self._raw(self.fill(inputs, part), len(part)))
        empty = {head: np.zeros((0, int(self.runner.outputs[head].shape[-1] or 0)), np.float32) for head in self.heads}
        found = {head: np.concatenate([p[head] for p in parts]) if parts else empty[head] for head in self.heads}
        return found if self.multi else found[self.heads[0]]

    def fill(self, inputs: npt.NDArray[Any], images: Sequence[Image]) -> npt.NDArray[Any]:
        """`inputs` with the images in it; rows left over repeat the first, so that nothing old is run."""
        self.rule.batch(images, inputs)
        inputs[len(images) :] = inputs[:1]
        return inputs

    def infer(self, inputs: npt.NDArray[Any], count: int | None = None) -> dict[str, Floats]:
        """Probabilities float32 (count, L) by head for inputs (B, h, w, C), as `rule` makes them.

        Args:
            inputs: a whole batch.
            count: how many rows of it hold an image.

        Raises:
            ModelError: `model-not-finite`.
        """
        return self.infer_looking(inputs, count)[0]

    def infer_looking(
        self, inputs: npt.NDArray[Any], count: int | None = None
    ) -> tuple[dict[str, Floats], npt.NDArray[Any] | None]:
        """As `infer`, and the theta (count, n) of each image; None without a `transform`."""
        count = self.batch if count is None else count
        outputs = self._outputs(inputs)
        found = {}
        for head, values in self._of_heads(outputs, count).items():
            if not np.isfinite(values).all():
                raise ModelError("model-not-finite", "the network's answer is not finite (NaN or infinity)")
            found[head] = probabilities(values, self.activation)
        return found, None if self.transform is None else outputs[THETA][:count]

    def answer(self, probs: Mapping[str, Floats]) -> Answer:
        """The structure of one image's probabilities float32 (L,) by head."""
        found = {head: ranked(values, self.options) for head, values in probs.items()}
        return MultiClassification(found) if self.multi else found[self.heads[0]]

    def row(self, found: Mapping[str, Floats], place: int) -> dict[str, Floats]:
        """One image's part of what `infer` gave."""
        return {head: values[place] for head, values in found.items()}

    @contextlib.contextmanager
    def inputs(self) -> Iterator[npt.NDArray[Any]]:
        """Memory for one batch of inputs (B, h, w, C), borrowed; what it holds is finite, and not yours."""
        buffer = self.borrow()
        try:
            yield buffer
        finally:
            self.give_back(buffer)

    def borrow(self) -> npt.NDArray[Any]:
        """As `inputs`, until it is given back; memory that was used before costs no page faults."""
        try:
            return self._buffers.pop()  # atomic: threads may share a classifier
        except IndexError:
            return np.zeros((self.batch, *self.rule.size_hw, self.rule.channels), self.rule.dtype)

    def give_back(self, buffer: npt.NDArray[Any]) -> None:
        """Lend it to the next one."""
        self._buffers.append(buffer)

    def close(self) -> None:
        """Give the networks' memory back."""
        for runner in self.runners:
            runner.close()

    def _raw(self, inputs: npt.NDArray[Any], count: int) -> dict[str, Floats]:
        return self._of_heads(self._outputs(inputs), count)

    def _outputs(self, inputs: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
        if self._channels_first:
            inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
        runner = self._idle.get()
        try:
            return runner(**{self._input.name: inputs})
        finally:
            self._idle.put(runner)

    def _of_heads(self, outputs: Mapping[str, npt.NDArray[Any]], count: int) -> dict[str, Floats]:
        return {
            head: outputs[head].reshape(len(outputs[head]), -1)[:count].astype(np.float32, copy=False)
            for head in self.heads
        }


def probabilities(values: Floats, activation: Activation = "softmax") -> Floats:
    """Probabilities float32 (N, L) of values float (N, L), which must be finite; the sum runs in float64.

    One value alone stands for two classes: its logistic function is the probability of class 1.
    """
    if values.shape[1] == 1:
        wide = values.astype(np.float64)
        one = wide if activation == "none" else 0.5 * (1.0 + np.tanh(0.5 * wide))
        return np.concatenate([1.0 - one, one], axis=1).astype(np.float32)
    if activation == "none":
        return values
    powers = np.subtract(values, values.max(axis=1, keepdims=True), dtype=np.float64)
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=1, keepdims=True)
    return powers.astype(np.float32)


def ranked(probs: Floats, options: ClassifyOptions) -> Classification:
    """The classes of one image that the options keep, most likely first, equal ones by their id."""
    ids = None
    if options.classes is not None:
        ids = np.array([c for c in options.classes if c < len(probs)], np.int64)
        probs = probs[ids]
    count = min(options.topk, len(probs))
    if count == 0:
        return Classification(np.zeros(0, np.int64), np.zeros(0, np.float32))
    least = max(float(np.partition(probs, len(probs) - count)[len(probs) - count]), options.conf)
    kept = np.flatnonzero(probs >= np.float32(least))
    kept = kept[np.argsort(-probs[kept], kind="stable")][:count]
    return Classification(kept if ids is None else ids[kept], probs[kept])


def _is_channels_first(shape: tuple[int | None, ...], channels: int) -> bool:
    return len(shape) == 4 and shape[1] == channels and shape[3] != channels

"""The loop that trains a network: a schedule, checkpoints it can go on from, early stopping. Any Keras backend."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError
from visionkit.runtime.keras_net import has_gpu
from visionkit.train.checkpoints import FitResult, resume, save, save_whole

__all__ = ["ClassGoal", "FitOptions", "FitResult", "Goal", "fit"]

BEST = "best.weights.h5"
Logits = npt.NDArray[np.float32]
Predict = Callable[[npt.NDArray[np.float32]], Any]


class Batches(Protocol):
    """Where training batches come from: the same for the same number, whenever asked."""

    steps_per_epoch: int

    def stream(self, first: int) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[Any]]]:
        """Batches number `first`, `first` + 1 …: images float32 (B, H, W, 3), and what the goal's loss takes."""


@runtime_checkable
class Held(Protocol):
    """Samples to choose the epoch on."""

    labels: npt.NDArray[np.int64]

    def logits(self, predict: Predict) -> Logits:
        """Logits (N, L) of all of them."""


class Goal(Protocol):
    """What a network learns, and the numbers that choose its best epoch."""

    @property
    def loss(self) -> Any:
        """A Keras loss of (what `Batches` gives, logits)."""

    @property
    def accuracy(self) -> Any:
        """A Keras metric, or a function of the same two, for the curve of the training itself."""

    def scores(self, predict: Predict) -> dict[str, float]:
        """The numbers `val_…` of an epoch, `val_loss` among them; `predict` takes float32 (B, H, W, 3)."""

    def rank(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """What makes one epoch's row of numbers better than another: larger is better."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a network learns.

    Args:
        patience: stop after this many epochs without a better validation accuracy; 0 never stops early.
        learning_rate: at its highest, after a linear warm-up of `warmup` epochs.
        schedule: `cosine`, half of one down to a hundredth; or `poly`, (1 - t) ** 0.9 (Chen et al., DeepLab, TPAMI
            2017, section 4.1.2).
        average: share of the old in a running mean of the weights, which is what is measured and kept in the place of
            the weights themselves (Polyak, Juditsky, Acceleration of stochastic approximation by averaging, 1992); 0
            keeps them.
        smoothing: of the labels (Szegedy et al., Rethinking the Inception architecture, CVPR 2016, section 7).
    """

    epochs: int = 60
    learning_rate: float = 2e-3
    seed: int = 0
    patience: int = 0
    weight_decay: float = 0.02
    smoothing: float = 0.1
    warmup: int = 3
    schedule: str = "cosine"
    average: float = 0.0


class ClassGoal:
    """One class an image: smoothed cross-entropy; the best epoch has the highest accuracy, then the lower loss."""

    def __init__(self, held: Held, smoothing: float) -> None:
        self._held = held
        self.loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
        self.accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")

    def scores(self, predict: Predict) -> dict[str, float]:
        """Mean cross-entropy and accuracy. A loss that is not finite ranks last, as the largest float."""
        logits, labels = self._held.logits(predict), self._held.labels
        shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
        loss = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
        mean = float(loss.mean())
        return {
            "val_loss": mean if math.isfinite(mean) else 3.4e38,
            "val_accuracy": float((logits.argmax(axis=1) == labels).mean()),
        }

    def rank(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """Accuracy, then the lower loss."""
        return row["val_accuracy"], -row["val_loss"]


def fit(
    network: keras.Model,
    batches: Batches,
    held: Held | Goal,
    *,
    out: Path,
    options: FitOptions,
    facts: dict[str, Any] | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Train `network` (logits out); at the end it holds the weights of its best epoch.

    AdamW, gradients clipped, the schedule of `FitOptions`; the best epoch is that which the goal ranks highest. `out`
    holds `state.json` and checkpoints: a call with the same arguments goes on from them, and ends as if it had never
    stopped.

    Args:
        held: the goal; or samples with classes, of which a `ClassGoal` is made.
        facts: what else makes this training itself (data, network …); another set of facts in `out` is refused.
        report: is given each epoch's row of the history.
        should_stop: asked after every step; true saves and returns at once.

    Raises:
        UsageError: `training-differs`; `out` holds a training of other settings.
        ModelError: `training-diverged`; the loss is not a finite number any more.
    """
    told = {**(facts or {}), **dataclasses.asdict(options)}
    keras.utils.set_random_seed(options.seed)
    goal = held if not isinstance(held, Held) else ClassGoal(held, options.smoothing)
    trainer = _compiled(network, goal, options, batches.steps_per_epoch)
    out.mkdir(parents=True, exist_ok=True)
    state = resume(trainer, out, told)
    last = options.epochs * batches.steps_per_epoch
    stream = batches.stream(state.step)
    try:
        while not _finished(state, options, last):
            _step(trainer, network, stream, state, options.seed)
            if state.step % batches.steps_per_epoch == 0:
                row = _close_epoch(trainer, network, goal, state, out, batches.steps_per_epoch)
                save(trainer, state, out, told)
                if report:
                    report(row)
            if should_stop() and not _finished(state, options, last):
                save(trainer, state, out, told)
                state.ended = "interrupted"
                return state
    finally:
        if hasattr(stream, "close"):
            stream.close()
    state.ended = "complete" if state.step == last else "patience"
    network.load_weights(out / BEST)
    return state


class Poly(keras.optimizers.schedules.LearningRateSchedule):
    """`rate` after a linear warm-up, then times (1 - t) ** `power`, t from 0 to 1."""

    def __init__(self, rate: float, steps: int, warmup: int, power: float = 0.9) -> None:
        self.rate, self.steps, self.warmup, self.power = rate, steps, warmup, power

    def __call__(self, step: Any) -> Any:
        """The rate of a step, counted from 0."""
        step = keras.ops.cast(step, "float32")
        rising = (step + 1) / (self.warmup + 1)
        rest = 1 - (step - self.warmup) / max(1, self.steps - self.warmup)
        falling = keras.ops.power(keras.ops.clip(rest, 0.0, 1.0), self.power)
        return self.rate * keras.ops.where(step < self.warmup, rising, falling)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"rate": self.rate, "steps": self.steps, "warmup": self.warmup, "power": self.power}


def _schedule(options: FitOptions, steps: int) -> Any:
    total = options.epochs * steps
    warmup = min(options.warmup * steps, total // 5)
    if options.schedule == "poly":
        return Poly(options.learning_rate, total, warmup)
    return keras.optimizers.schedules.CosineDecay(
        options.learning_rate / 20,
        max(1, total - warmup),
        alpha=0.01,
        warmup_target=options.learning_rate,
        warmup_steps=warmup,
    )


def _compiled(network: keras.Model, goal: Goal, options: FitOptions, steps: int) -> keras.Model:
    """A model over the same layers that owns the optimizer, so that weights are saved without it."""
    mean: dict[str, Any] = {"use_ema": True, "ema_momentum": options.average} if options.average else {}
    optimizer = keras.optimizers.AdamW(
        _schedule(options, steps), weight_decay=options.weight_decay, clipnorm=5.0, **mean
    )
    no_decay = ("bias", "gamma", "beta")
    optimizer.exclude_from_weight_decay(var_names=list(no_decay))
    accuracy = goal.accuracy
    if not isinstance(accuracy, keras.metrics.Metric):
        accuracy = keras.metrics.MeanMetricWrapper(accuracy, name="accuracy")
    trainer = keras.Model(network.input, network.output, name="trainer")
    trainer.compile(
        optimizer=optimizer,
        loss=goal.loss,
        metrics=[accuracy],
        # XLA makes convolutions on a CPU slower by far, except on JAX, which has nothing else
        jit_compile={"jax": True, "tensorflow": has_gpu()}.get(keras.backend.backend(), False),
    )
    # the optimizer's variables, as the metric's above, are made here: where the first step does, it is traced twice
    optimizer.build(trainer.trainable_variables)
    return trainer


def _finished(state: FitResult, options: FitOptions, last: int) -> bool:
    if state.step >= last:
        return True
    since = 0 if state.best is None else len(state.history) - state.best["epoch"]
    return bool(options.patience) and since >= options.patience


def _step(trainer: keras.Model, network: keras.Model, stream: Iterator[Any], state: FitResult, seed: int) -> None:
    started = time.monotonic()
    x, y = next(stream)
    _reseed(network, seed, state.step)
    logs = trainer.train_on_batch(x, y, return_dict=True)
    loss = float(logs["loss"])
    if not math.isfinite(loss):
        raise ModelError(
            "training-diverged",
            f"The loss became {loss} at step {state.step + 1}: the network has learnt too fast or met numbers that are "
            "not finite. Train again with a lower --learning-rate and another --out.",
        )
    state.step += 1
    state.sums["loss"] += loss
    state.sums["right"] += float(logs["accuracy"])
    state.sums["seconds"] += time.monotonic() - started


def _reseed(network: keras.Model, seed: int, step: int) -> None:
    """Makes the random numbers of dropout depend on seed and step alone, so that a resumed training draws the same."""
    for number, layer in enumerate(network.layers):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            drawn = np.random.default_rng((seed, step, number)).integers(0, 2**31 - 1, 2)
            generator.state.assign(drawn.astype(np.uint32))


def _close_epoch(
    trainer: keras.Model, network: keras.Model, goal: Goal, state: FitResult, out: Path, steps: int
) -> dict[str, Any]:
    """The row of the epoch that has just ended; its weights are kept if it is the best."""
    started = time.monotonic()
    rate = float(keras.ops.convert_to_numpy(trainer.optimizer.learning_rate))
    with _averaged(trainer):
        scores = goal.scores(trainer.predict_on_batch)
        row = {
            "epoch": len(state.history) + 1,
            "loss": round(state.sums["loss"] / steps, 6),
            "accuracy": round(state.sums["right"] / steps, 6),
            **{key: round(value, 6) for key, value in scores.items()},
            "learning_rate": rate,
            "seconds": round(state.sums["seconds"] + time.monotonic() - started, 3),
        }
        state.history.append(row)
        state.sums = {"loss": 0.0, "right": 0.0, "seconds": 0.0}
        if state.best is None or goal.rank(row) > goal.rank(state.best):
            state.best = row
            save_whole(network, out / BEST)
    return row


@contextlib.contextmanager
def _averaged(trainer: keras.Model) -> Iterator[None]:
    """Within, the network has the running mean of its weights, if the optimizer keeps one."""
    if not trainer.optimizer.use_ema:
        yield
        return
    variables = trainer.trainable_variables
    now = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    trainer.optimizer.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, value in zip(variables, now, strict=True):
            variable.assign(value)

"""The loop that trains a classifier: one schedule, checkpoints it can go on from, early stopping. Any Keras backend."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
import numpy.typing as npt

from visionkit.errors import ModelError, UsageError
from visionkit.io import write_json
from visionkit.runtime.keras_net import has_gpu

__all__ = ["FitOptions", "FitResult", "fit", "read_state"]

STATE = "state.json"
BEST = "best.weights.h5"
Logits = npt.NDArray[np.float32]
Predict = Callable[[npt.NDArray[np.float32]], Any]


class Batches(Protocol):
    """Where training batches come from: the same for the same number, whenever asked."""

    steps_per_epoch: int

    def stream(self, first: int) -> Iterator[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
        """Batches number `first`, `first` + 1 …: images float32 (B, H, W, 3), classes one-hot float32 (B, L)."""


class Held(Protocol):
    """Samples to choose the epoch on."""

    labels: npt.NDArray[np.int64]

    def logits(self, predict: Predict) -> Logits:
        """Logits (N, L) of all of them."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a network learns.

    Args:
        patience: stop after this many epochs without a better validation accuracy; 0 never stops early.
        learning_rate: at its highest, after a linear warm-up of `warmup` epochs; then one cosine to a hundredth.
        smoothing: of the labels (Szegedy et al., Rethinking the Inception architecture, CVPR 2016, section 7).
    """

    epochs: int = 60
    learning_rate: float = 2e-3
    seed: int = 0
    patience: int = 0
    weight_decay: float = 0.02
    smoothing: float = 0.1
    warmup: int = 3


@dataclass
class FitResult:
    """Where a training stands: a row of numbers an epoch, the best of them, and why it ended.

    `ended` is `complete`, `patience`, or `interrupted` (it goes on when called again).
    """

    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    sums: dict[str, float] = field(default_factory=lambda: {"loss": 0.0, "right": 0.0, "seconds": 0.0})
    ended: str = ""

    @property
    def seconds(self) -> float:
        """Seconds of training and validation, of all runs together."""
        return float(sum(row["seconds"] for row in self.history)) + self.sums["seconds"]


def fit(
    network: keras.Model,
    batches: Batches,
    held: Held,
    *,
    out: Path,
    options: FitOptions,
    facts: dict[str, Any] | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Train `network` (logits out); at the end it holds the weights of its best epoch.

    AdamW, gradients clipped, the schedule of `FitOptions`; the best epoch is that of the highest accuracy on `held`,
    the lower loss among equals. `out` holds `state.json` and checkpoints: a call with the same arguments goes on from
    them, and ends as if it had never stopped.

    Args:
        facts: what else makes this training itself (data, network …); another set of facts in `out` is refused.
        report: is given each epoch's row of the history.
        should_stop: asked after every step; true saves and returns at once.

    Raises:
        UsageError: `training-differs`; `out` holds a training of other settings.
        ModelError: `training-diverged`; the loss is not a finite number any more.
    """
    told = {**(facts or {}), **dataclasses.asdict(options)}
    keras.utils.set_random_seed(options.seed)
    trainer = _compiled(network, options, batches.steps_per_epoch)
    out.mkdir(parents=True, exist_ok=True)
    state = _resume(trainer, out, told)
    last = options.epochs * batches.steps_per_epoch
    stream = batches.stream(state.step)
    try:
        while not _finished(state, options, last):
            _step(trainer, network, stream, state, options.seed)
            if state.step % batches.steps_per_epoch == 0:
                row = _close_epoch(trainer, network, held, state, out, batches.steps_per_epoch)
                _save(trainer, state, out, told)
                if report:
                    report(row)
            if should_stop() and not _finished(state, options, last):
                _save(trainer, state, out, told)
                state.ended = "interrupted"
                return state
    finally:
        if hasattr(stream, "close"):
            stream.close()
    state.ended = "complete" if state.step == last else "patience"
    network.load_weights(out / BEST)
    return state


def _compiled(network: keras.Model, options: FitOptions, steps: int) -> keras.Model:
    """A model over the same layers that owns the optimizer, so that weights are saved without it."""
    total = options.epochs * steps
    warmup = min(options.warmup * steps, total // 5)
    schedule: Any = keras.optimizers.schedules.CosineDecay(
        options.learning_rate / 20,
        max(1, total - warmup),
        alpha=0.01,
        warmup_target=options.learning_rate,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=options.weight_decay, clipnorm=5.0)
    no_decay = ("bias", "gamma", "beta")
    optimizer.exclude_from_weight_decay(var_names=list(no_decay))
    trainer = keras.Model(network.input, network.output, name="trainer")
    trainer.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=options.smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        # XLA makes convolutions on a CPU slower by far, except on JAX, which has nothing else
        jit_compile={"jax": True, "tensorflow": has_gpu()}.get(keras.backend.backend(), False),
    )
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
    trainer: keras.Model, network: keras.Model, held: Held, state: FitResult, out: Path, steps: int
) -> dict[str, Any]:
    """The row of the epoch that has just ended; its weights are kept if it is the best."""
    started = time.monotonic()
    rate = float(keras.ops.convert_to_numpy(trainer.optimizer.learning_rate))
    logits = held.logits(trainer.predict_on_batch)
    loss, accuracy = _scores(logits, held.labels)
    row = {
        "epoch": len(state.history) + 1,
        "loss": round(state.sums["loss"] / steps, 6),
        "accuracy": round(state.sums["right"] / steps, 6),
        "val_loss": round(loss, 6),
        "val_accuracy": round(accuracy, 6),
        "learning_rate": rate,
        "seconds": round(state.sums["seconds"] + time.monotonic() - started, 3),
    }
    state.history.append(row)
    state.sums = {"loss": 0.0, "right": 0.0, "seconds": 0.0}
    if state.best is None or _rank(row) > _rank(state.best):
        state.best = row
        _save_whole(network, out / BEST)
    return row


def _rank(row: dict[str, Any]) -> tuple[float, float]:
    return row["val_accuracy"], -row["val_loss"]


def _scores(logits: Logits, labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of logits (N, L). A loss that is not finite ranks last, as the largest float."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    loss = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]
    mean = float(loss.mean())
    return mean if math.isfinite(mean) else 3.4e38, float((logits.argmax(axis=1) == labels).mean())


def _save(trainer: keras.Model, state: FitResult, out: Path, told: dict[str, Any]) -> None:
    """Writes a checkpoint, then the state that names it, then removes the older ones: at no moment is there none."""
    name = f"step-{state.step:08d}.weights.h5"
    _save_whole(trainer, out / name)
    table = {"checkpoint": name, "settings": told, **{key: getattr(state, key) for key in _KEPT}}
    write_json(out / STATE, table)
    for old in out.glob("step-*.weights.h5"):
        if old.name != name:
            old.unlink()


_KEPT = ("step", "history", "best", "sums")


def _save_whole(model: keras.Model, path: Path) -> None:
    part = path.with_name(f".next-{path.name}")
    model.save_weights(part)
    part.replace(path)


def read_state(out: Path) -> dict[str, Any] | None:
    """What `state.json` of a training folder says; None where there is none.

    Raises:
        UsageError: `training-unreadable`; it is not the state of a training.
    """
    path = out / STATE
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        if not {"checkpoint", "settings", *_KEPT} <= set(table):
            raise ValueError("keys are missing")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            "training-unreadable", f"{path} is not the state of a training ({error}). Choose another --out."
        ) from error
    return dict(table)


def _resume(trainer: keras.Model, out: Path, told: dict[str, Any]) -> FitResult:
    """The state in `out`, its checkpoint loaded into the trainer; a new one where there is none."""
    table = read_state(out)
    if table is None:
        return FitResult()
    then = table["settings"]
    now = json.loads(json.dumps(told))
    differing = [key for key in sorted({*then, *now}) if then.get(key) != now.get(key)]
    if differing:
        told_apart = ", ".join(f"{key} {_short(then.get(key))} then, {_short(now.get(key))} now" for key in differing)
        raise UsageError(
            "training-differs",
            f"{out} holds a training with other settings: {told_apart}. Give the same ones to go on, or another --out.",
        )
    trainer.optimizer.build(trainer.trainable_variables)
    try:
        trainer.load_weights(out / table["checkpoint"])
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError("model-unfit", f"{out / table['checkpoint']} is no checkpoint of this: {reason}") from error
    return FitResult(**{key: table[key] for key in _KEPT})


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:39] + "…"

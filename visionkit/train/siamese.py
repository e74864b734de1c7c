"""Training of the Siamese box tracker: losses, the pair stream, and the loop. Any Keras backend; seeded; resumable."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from visionkit.nets.siambox import STRIDE, cell_centers, siambox
from visionkit.train.stream import Material, pair_batches

__all__ = ["SiameseTrainer", "box_iou", "build_siambox", "train_siamese"]


def box_iou(a: Any, b: Any) -> tuple[Any, Any]:
    """IoU and generalised IoU (Rezatofighi et al., CVPR 2019) of boxes (..., 4) xyxy, each (...)."""
    lower, upper = ops.maximum(a[..., :2], b[..., :2]), ops.minimum(a[..., 2:], b[..., 2:])
    inter = ops.prod(ops.maximum(upper - lower, 0.0), axis=-1)
    area = ops.prod(a[..., 2:] - a[..., :2], axis=-1) + ops.prod(b[..., 2:] - b[..., :2], axis=-1)
    union = area - inter
    hull = ops.prod(ops.maximum(a[..., 2:], b[..., 2:]) - ops.minimum(a[..., :2], b[..., :2]), axis=-1)
    iou = inter / ops.maximum(union, 1e-6)
    return iou, iou - (hull - union) / ops.maximum(hull, 1e-6)


@keras.saving.register_keras_serializable(package="visionkit")
class SiameseTrainer(keras.Model):
    """A SiamBox network with its loss.

    The score of a cell near the object's centre learns the IoU of the box regressed there, 0 elsewhere (quality focal
    loss, Li et al., Generalized focal loss, NeurIPS 2020, equation 2); boxes learn by the generalised IoU. Cells inside
    the box but away from its centre are ignored by the score.
    """

    def __init__(self, network: keras.Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = network
        self.centers = cell_centers(network.output["logits"].shape[1])
        self.built = True  # its layers are the network's

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Logits and ltrb of the network."""
        return self.network(inputs, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The mean loss of a batch: y = {box (B, 4) xyxy in the search region, present (B,)}."""
        centers = ops.convert_to_tensor(self.centers)[None]  # (1, n, n, 2)
        box = y["box"][:, None, None, :]  # (B, 1, 1, 4)
        present = ops.cast(y["present"], "float32")[:, None, None]
        ltrb, logits = y_pred["ltrb"], y_pred["logits"][..., 0]
        predicted = ops.concatenate([centers - ltrb[..., :2], centers + ltrb[..., 2:]], axis=-1)
        iou, giou = box_iou(predicted, box)
        middle, size = (box[..., :2] + box[..., 2:]) / 2, box[..., 2:] - box[..., :2]
        offset = ops.abs(centers - middle)
        # the core is the central half of the box, and always the nearest cell
        core = ops.all(offset <= ops.maximum(size * 0.25, STRIDE * 0.51), axis=-1)
        inside = ops.all(offset <= ops.maximum(size * 0.5, STRIDE * 0.51), axis=-1)
        positive = ops.cast(core, "float32") * present
        judged = 1.0 - ops.cast(inside, "float32") * present + positive
        quality = ops.stop_gradient(ops.clip(iou, 0.0, 1.0)) * positive
        focus = ops.square(ops.stop_gradient(ops.sigmoid(logits)) - quality)
        cross = ops.relu(logits) - logits * quality + ops.log1p(ops.exp(-ops.abs(logits)))
        count = ops.maximum(ops.sum(positive), 1.0)
        score_loss = ops.sum(focus * cross * judged) / count
        box_loss = ops.sum((1.0 - giou) * positive) / count
        return 4.0 * score_loss + box_loss


def build_siambox(seed: int) -> keras.Model:
    """A SiamBox with the random weights of a seed."""
    keras.utils.set_random_seed(seed)
    return siambox()


def train_siamese(
    network: keras.Model,
    material: Material,
    *,
    steps: int,
    out: Path,
    seed: int = 0,
    batch: int = 32,
    learning_rate: float = 1.5e-3,
    workers: int = 1,
    save_every: int = 500,
    stop_at: int | None = None,
    sampler: dict[str, Any] | None = None,
    report: Callable[[dict[str, float]], None] | None = None,
    watch: Callable[[SiameseTrainer], None] | None = None,
) -> keras.Model:
    """Train `network` for `steps` batches and return it; `out` holds `last.weights.h5` (resumed from) and `log.jsonl`.

    AdamW, weight decay 1e-4, a linear warm-up, one cosine from `learning_rate` to a hundredth of it. `stop_at` ends
    after that step, as a lost machine would; the next call with the same `out` goes on from there. `watch` sees the
    trainer after every step, `report` a row of the log now and then.
    """
    keras.utils.set_random_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    trainer = SiameseTrainer(network)
    warmup = min(300, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate / 20, steps - warmup, alpha=0.01, warmup_target=learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=1e-4, clipnorm=5.0)
    trainer.compile(optimizer=optimizer, jit_compile=keras.backend.backend() == "jax")
    optimizer.build(trainer.trainable_variables)  # where the first step does it, TensorFlow traces that twice
    done = _resume(trainer, out)
    started, losses = time.monotonic(), []
    batches = pair_batches(material, seed=seed, batch=batch, workers=workers, skip=done, sampler=sampler)
    last = steps if stop_at is None else min(stop_at, steps)
    for step in range(done + 1, last + 1):
        x, y = next(batches)
        losses.append(float(trainer.train_on_batch(x, y)))
        if watch:
            watch(trainer)
        if step % 50 == 0 or step == last:
            row = {
                "step": step,
                "loss": round(float(np.mean(losses)), 4),
                "pairs_per_s": round((step - done) * batch / (time.monotonic() - started), 1),
            }
            losses.clear()
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(row) + "\n")
            if report:
                report(row)
        if step % save_every == 0 or step == last:
            _save(trainer, out, step)
    batches.close()
    return network


def _save(trainer: SiameseTrainer, out: Path, step: int) -> None:
    temp = out / "next.weights.h5"
    trainer.save_weights(temp)
    temp.replace(out / "last.weights.h5")
    (out / "state.json").write_text(json.dumps({"step": step}))
    trainer.network.save_weights(out / "network.weights.h5")


def _resume(trainer: SiameseTrainer, out: Path) -> int:
    """Load the last checkpoint of `out`, if there is one, and return its step."""
    state = out / "state.json"
    if not state.exists():
        return 0
    trainer.load_weights(out / "last.weights.h5")
    return int(json.loads(state.read_text())["step"])

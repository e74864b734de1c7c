"""Cross-correlation of a search region with an exemplar, sample by sample."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["CrossCorrelation"]

MODES = ("full", "depthwise", "pixelwise")


@keras.saving.register_keras_serializable(package="visionkit")
class CrossCorrelation(keras.layers.Layer):
    """Cross-correlates each sample's `search` features with the same sample's `exemplar` features; nothing is flipped.

    `full` sums over channels (Bertinetto et al., ECCVW 2016, equation 2), `depthwise` keeps them (Li et al.,
    SiamRPN++, CVPR 2019, section 3.3), `pixelwise` takes every exemplar position as a 1x1 kernel (Yan et al.,
    Alpha-Refine, CVPR 2021, section 3.2), so that its channel `i * w + j` is the similarity to position (i, j).

    Args:
        mode: `full`, `depthwise` or `pixelwise`.

    Call arguments:
        inputs: [exemplar (B, h, w, C), search (B, H, W, C)], float, sizes known when built.

    Returns:
        full: (B, H - h + 1, W - w + 1, 1); depthwise: (B, H - h + 1, W - w + 1, C); pixelwise: (B, H, W, h * w).
    """

    def __init__(self, mode: str = "full", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mode not in MODES:
            raise ValueError(f"`mode` must be one of {', '.join(MODES)}. Received: mode={mode!r}.")
        self.mode = mode

    def build(self, input_shape: Any) -> None:
        """Check that the two feature maps fit each other."""
        exemplar, search = (tuple(shape) for shape in input_shape)
        if len(exemplar) != 4 or len(search) != 4 or None in exemplar[1:] + search[1:]:
            raise ValueError(
                f"`inputs` must be two maps (B, H, W, C) of known size. Received: exemplar={exemplar}, search={search}."
            )
        if exemplar[3] != search[3]:
            raise ValueError(
                f"`inputs` must have the same number of channels. Received: exemplar={exemplar}, search={search}."
            )
        if self.mode != "pixelwise" and (exemplar[1] > search[1] or exemplar[2] > search[2]):
            raise ValueError(
                "The exemplar must not be larger than the search region. "
                f"Received: exemplar={exemplar}, search={search}."
            )
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The response map, see the class."""
        exemplar, search = inputs
        if self.mode == "depthwise":
            return self._depthwise(exemplar, search)
        similarity = self._pixelwise(exemplar, search)
        if self.mode == "pixelwise":
            return similarity
        # the response at (y, x) adds similarity (y + i, x + j) of each exemplar position (i, j)
        h, w = exemplar.shape[1:3]
        out_h, out_w = search.shape[1] - h + 1, search.shape[2] - w + 1
        response = 0.0
        for i in range(h):
            for j in range(w):
                channel = i * w + j
                response = response + similarity[:, i : i + out_h, j : j + out_w, channel : channel + 1]
        return response

    def _pixelwise(self, exemplar: Any, search: Any) -> Any:
        (h, w, channels), (height, width) = exemplar.shape[1:], search.shape[1:3]
        kernels = ops.transpose(ops.reshape(exemplar, (-1, h * w, channels)), (0, 2, 1))  # (B, C, h * w)
        similarity = ops.matmul(ops.reshape(search, (-1, height * width, channels)), kernels)
        return ops.reshape(similarity, (-1, height, width, h * w))

    def _depthwise(self, exemplar: Any, search: Any) -> Any:
        # samples become groups of channels of one image, so that no sample meets another's kernel
        (h, w, channels), (height, width) = exemplar.shape[1:], search.shape[1:3]
        batch = ops.shape(search)[0]
        image = ops.reshape(ops.transpose(search, (1, 2, 0, 3)), (1, height, width, batch * channels))
        kernel = ops.reshape(ops.transpose(exemplar, (1, 2, 0, 3)), (h, w, batch * channels, 1))
        out = ops.depthwise_conv(image, kernel, strides=1, padding="valid", data_format="channels_last")
        out = ops.reshape(out, (height - h + 1, width - w + 1, batch, channels))
        return ops.transpose(out, (2, 0, 1, 3))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Shape of the response, see the class."""
        (_, h, w, channels), (batch, height, width, _) = input_shape
        if self.mode == "pixelwise":
            return batch, height, width, h * w
        return batch, height - h + 1, width - w + 1, channels if self.mode == "depthwise" else 1

    def get_config(self) -> dict[str, Any]:
        """The layer's arguments."""
        return {**super().get_config(), "mode": self.mode}

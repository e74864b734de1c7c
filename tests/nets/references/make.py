"""Make the references in this folder: what torchvision computes from weights that anyone can make again from names.

    python tests/nets/references/make.py            # needs torch and torchvision, which the tests do not

One `NAME.json` and one `NAME.npz` a network, in the format that tests/nets/synthetic.py reads. The weights are
functions of their names; only the running statistics of the normalisations, taken from the first two images, are stored
(rounded to half precision before the outputs are computed). Ten classes, and sizes that are neither square nor
multiples of the networks' strides. Made with torch 2.13.0 and torchvision 0.28.0 on a CPU.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torchvision import models

FOLDER = Path(__file__).parent
CLASSES = 10
IMAGES = ((2, 197, 167), (1, 163, 211))  # how many, height, width
NETWORKS = {
    "alexnet": {},
    "googlenet": {"init_weights": False, "aux_logits": True},
    "mobilenet_v2": {},
    "mobilenet_v3_small": {},
    "resnet18": {},
}


def kind_of(name: str, shape: tuple[int, ...]) -> str:
    """How the value of an entry of the state dict is made."""
    if name.endswith("num_batches_tracked"):
        return "zeros"
    if "running_" in name:
        return "calibrated"
    if name.endswith("bias"):
        return "bias"
    return "normal" if len(shape) > 1 else "uniform"


def made(name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """The value of an entry, from its name alone."""
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    if kind == "normal":
        return (np.sqrt(2 / np.prod(shape[1:])) * rng.standard_normal(size=shape)).astype(np.float32)
    if kind == "uniform":
        return rng.uniform(0.5, 1.5, size=shape).astype(np.float32)
    if kind == "bias":
        return (0.05 * rng.standard_normal(size=shape)).astype(np.float32)
    return np.zeros(shape, np.float32)


def pictures(count: int, height: int, width: int) -> np.ndarray:
    """Smooth random pictures, uint8 (B, H, W, 3)."""
    coarse = np.random.RandomState(height).uniform(0, 255, (count, 3, 9, 7)).astype(np.float32)
    fine = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=(height, width), mode="bicubic")
    return fine.permute(0, 2, 3, 1).numpy().clip(0, 255).round().astype(np.uint8)


def tensor(images: np.ndarray) -> torch.Tensor:
    """The network's input: (B, 3, H, W), normalised as ImageNet is."""
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    rgb = (images.astype(np.float32) / 255 - mean) / std
    return torch.from_numpy(rgb.transpose(0, 3, 1, 2).copy())


def calibrate(net: torch.nn.Module, images: np.ndarray) -> None:
    """Set every normalisation's running statistics to what the images show it, rounded to half precision."""

    def see(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        x = inputs[0]
        module.running_mean.copy_(x.mean((0, 2, 3)).half().float())
        module.running_var.copy_(x.var((0, 2, 3), unbiased=False).clamp(min=1e-3).half().float())

    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    hooks = [module.register_forward_pre_hook(see) for module in norms]
    net(tensor(images))
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def make(name: str, **options: object) -> None:
    """Write the reference of one network."""
    net = models.get_model(name, weights=None, num_classes=CLASSES, **options).eval()
    entries = {
        key: {"shape": list(value.shape), "kind": kind_of(key, tuple(value.shape))}
        for key, value in net.state_dict().items()
    }
    values = {key: made(key, tuple(entry["shape"]), entry["kind"]) for key, entry in entries.items()}
    net.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in values.items()})
    batches = [pictures(*size) for size in IMAGES]
    calibrate(net, batches[0])
    arrays = {f"image_{i}": images for i, images in enumerate(batches)}
    arrays |= {f"logits_{i}": net(tensor(images)).numpy() for i, images in enumerate(batches)}
    state = net.state_dict()
    for key, entry in entries.items():
        if entry["kind"] == "calibrated":
            arrays[f"bn/{key}"] = state[key].numpy().astype(np.float16)
    np.savez_compressed(FOLDER / f"{name}.npz", **arrays)
    parameters = sum(value.numel() for value in net.parameters())
    facts = {"model": name, "classes": CLASSES, "parameters": parameters, "scale": {}, "state_dict": entries}
    (FOLDER / f"{name}.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    for each, given in NETWORKS.items():
        make(each, **given)

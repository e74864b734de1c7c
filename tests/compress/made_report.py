"""A verdict's report on made numbers, for tests of the page."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from visionkit.compress.report_data import Disagreement, LayerDamage, QuantizeReport, RescueStep
from visionkit.compress.verdict import Bounds, ClassChange, Interval, Timing, VariantFacts, decide


def classes(worst: float, count: int = 6) -> tuple[ClassChange, ...]:
    names = ["cat", "dog", "<b>owl</b>", "a rather long name of a class", "fox", "hen"]
    drops = np.linspace(worst, -1, count)
    return tuple(
        ClassChange(name, 40, 0.95, 0.95 - drop / 100, Interval(float(drop), float(drop) - 4, float(drop) + 4))
        for name, drop in zip(names, drops, strict=True)
    )


def picture(seed: int) -> np.ndarray:
    image = np.full((90, 120, 3), 60 + 20 * seed, np.uint8)
    image[20:70, 30:90, seed % 3] = 220
    return image


def made_report(*, max_drop: float = 1.0) -> QuantizeReport:
    reference = VariantFacts(
        "float32",
        metric=Interval(0.962, 0.941, 0.979),
        images=480,
        size=4_210_000,
        zipped=3_900_000,
        timings=(Timing(1, 6.2, 7.9, 5.6, 7.0), Timing(2, 3.4, 4.6, 2.9, 4.1)),
    )
    half = replace(
        reference,
        kind="float16",
        drop=Interval(0.0, 0.0, 0.0),
        classes=classes(0),
        agreement=1.0,
        frames=100,
        size=2_120_000,
        zipped=1_980_000,
    )
    int8 = replace(
        half,
        kind="int8",
        metric=Interval(0.958, 0.937, 0.977),
        drop=Interval(0.4, 0.0, 0.8),
        classes=classes(2.5),
        agreement=0.98,
        size=1_130_000,
        zipped=930_000,
        timings=(Timing(1, 3.1, 3.9, 2.6, 3.3), Timing(2, 1.9, 2.6, 1.5, 2.1)),
        notes=("2 operations stay in float: SOFTMAX, RESIZE_BILINEAR",),
    )
    ruined = replace(int8, kind="int8-io", drop=Interval(4.2, 2.6, 6.1), metric=Interval(0.92, 0.89, 0.94))
    ruined = replace(ruined, classes=classes(60.0))
    wide = replace(int8, kind="dynamic", drop=Interval(0.6, -0.8, 2.1), images=480)
    broken = VariantFacts("qat", failed="the data has no part to learn from; give --split")
    variants = [half, int8, ruined, wide, broken]
    bounds = Bounds(max_drop=max_drop, latency_ms=5.0)
    worst = [Disagreement(f"cat/{k}.jpg", "cat 98 %", "dog 61 %", "cat", 0.9 - 0.1 * k, picture(k)) for k in range(5)]
    return QuantizeReport(
        title="my_model on photos <script>alert(1)</script>",
        metric="top-1",
        class_metric="recall",
        counted="images",
        reference=reference,
        variants=variants,
        decision=decide(reference, variants, bounds, "top-1"),
        bounds=bounds,
        pictures={"int8": worst, "int8-io": worst[:2]},
        layers=[LayerDamage(f"layer{k}.0.conv", "DEPTHWISE_CONV_2D", 12.5 + 3 * k) for k in range(30)],
        ranked="int8",
        rescue=[RescueStep((), ruined), RescueStep(("layer0.0.conv",), replace(int8, kind="int8-rescued"))],
        settings={"data": "photos/", "images": 480},
        command="visionkit quantize my_model --data photos/",
        notes=["photos/7.jpg is damaged and not counted"],
    )

"""Keep the layers that do the most damage in float until a variant is within bounds: as few as will do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from visionkit.compress.report_data import LayerDamage, RescueStep
from visionkit.compress.verdict import VariantFacts

__all__ = ["rescue"]


def rescue(
    layers: Sequence[LayerDamage],
    trying: Callable[[tuple[str, ...]], VariantFacts],
    is_good: Callable[[VariantFacts], bool],
    first: VariantFacts,
) -> list[RescueStep]:
    """What was tried, in order; the last step is the one to take, and is good if anything was.

    The number of layers is doubled until the variant is good, then halved in between: some twice as many tries as the
    number of layers has binary digits.

    Args:
        layers: the most damaging first.
        trying: builds and measures the variant that keeps layers of these names in float.
        first: what was measured with none of them.
    """
    names = [layer.name for layer in layers]
    tried: dict[int, VariantFacts] = {0: first}

    def good(count: int) -> bool:
        if count not in tried:
            tried[count] = trying(tuple(names[:count]))
        return is_good(tried[count])

    low, high = 0, 1
    while high < len(names) and not good(high):
        low, high = high, 2 * high
    high = min(high, len(names))
    if good(high):
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if good(middle) else (middle, high)
    counts = [count for count in tried if count != high] + [high]
    return [RescueStep(tuple(names[:count]), tried[count]) for count in counts]

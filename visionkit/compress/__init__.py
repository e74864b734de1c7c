"""Networks made smaller and faster, and what that costs."""

from visionkit.compress.svd import DenseSavings, dense_savings, truncate_dense

__all__ = ["DenseSavings", "dense_savings", "truncate_dense"]

# mypy: ignore-errors
"""How loops are compiled by numba, alike for all of them."""

from __future__ import annotations

import numba
from numba.core import config

__all__ = ["inlined", "jit"]

# Sums may be reordered; NaN and infinity keep their meaning.
FAST = {"contract", "reassoc", "nsz", "arcp"}
# No `parallel=True`: the loops release the GIL and are run on ranges of rows by Python threads, which unlike numba's
# own may be called from several threads at once, survive a fork, and differ in number from call to call.
jit = numba.njit(nogil=True, cache=bool(config.CACHE_DIR), fastmath=FAST, error_model="numpy")
inlined = numba.njit(nogil=True, fastmath=FAST, error_model="numpy", forceinline=True)

# mypy: ignore-errors
"""How loops are compiled by numba, alike for all of them."""

from __future__ import annotations

import contextlib

import numba
from numba.core import config

__all__ = ["inlined", "jit"]

# Sums may be reordered; NaN and infinity keep their meaning.
FAST = {"contract", "reassoc", "nsz", "arcp"}
# No `parallel=True`: the loops release the GIL and are run on ranges of rows by Python threads, which unlike numba's
# own may be called from several threads at once, survive a fork, and differ in number from call to call.
SETTINGS = {"nogil": True, "fastmath": FAST, "error_model": "numpy"}
inlined = numba.njit(forceinline=True, **SETTINGS)


class _Forgiving:
    """A cache of compiled code on a disk that may be full or damaged: then loops are compiled again, no more."""

    def __init__(self, cache):
        self._cache = cache

    def __getattr__(self, name):
        return getattr(self._cache, name)

    def load_overload(self, sig, target_context):
        try:
            return self._cache.load_overload(sig, target_context)
        except Exception:  # a damaged pickle can raise anything
            with contextlib.suppress(OSError):
                self._cache.flush()
            return None

    def save_overload(self, sig, data):
        with contextlib.suppress(OSError):
            self._cache.save_overload(sig, data)


def jit(function):
    """`function` compiled; what it compiles to is kept where numba has a folder for it."""
    compiled = numba.njit(cache=bool(config.CACHE_DIR), **SETTINGS)(function)
    if config.CACHE_DIR and hasattr(compiled, "_cache"):
        compiled._cache = _Forgiving(compiled._cache)
    return compiled

"""Tests, and helpers imported as `tests.…`."""

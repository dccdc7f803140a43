"""A fixture that checks an error against its bound and records it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


@pytest.fixture
def within(record_property: Callable[[str, object], None]) -> Callable[[str, object, float], None]:
    """`within(what, error, bound)`: the largest magnitude of `error`; `--junitxml FILE` lists all of them."""

    def check(what: str, error: object, bound: float) -> None:
        largest = float(np.max(np.abs(np.asarray(error, np.float64))))
        record_property(what, f"{largest:.3g} (bound {bound:g})")
        assert largest <= bound, f"{what}: {largest:.6g} instead of at most {bound:g}"

    return check

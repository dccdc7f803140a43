"""A requirement on a framework that cannot be an extra of this distribution."""

from __future__ import annotations

GYMNAX = "gymnax>=1.0.1"  # no extra: it holds back JAX, and extras of a distribution are resolved together

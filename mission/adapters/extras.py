"""The requirement of a framework that no extra of this distribution can name."""

from __future__ import annotations

GYMNAX = "gymnax>=1.0.1"  # no extra: it holds back JAX, and extras of a distribution are resolved together

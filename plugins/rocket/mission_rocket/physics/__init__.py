"""Vehicles, air and motion: pure functions of one vehicle on plain tuples; SI units, radians; jax only.

A scalar per component instead of arrays of three: vectorised from outside, every component is one
contiguous run of the batch (docs/decisions/0005-scalars-per-component.md).
"""

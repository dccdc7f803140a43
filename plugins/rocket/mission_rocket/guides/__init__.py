"""Guidance laws: one classical controller per file, and the guidance, prediction and regulator that they share."""

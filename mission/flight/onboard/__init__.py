"""Policies for flight computers: C99, ONNX, StableHLO and numpy, each checked against the original policy."""

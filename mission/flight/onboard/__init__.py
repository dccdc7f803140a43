"""Policies for flight computers: C99, ONNX, StableHLO and numpy, checked against the policy that they were made from."""

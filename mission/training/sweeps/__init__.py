"""Sweeps of a chain: its phases train again, backwards and then forwards, from the states that they are really given."""

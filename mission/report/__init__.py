"""Fly a mission and compute its statistics; report folders and their page; learning curves."""

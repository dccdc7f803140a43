"""Compute the statistics of flights; write report folders and their page; draw learning curves."""

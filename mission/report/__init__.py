"""Flying a mission, the statistics of it, report folders and their page, and learning curves."""

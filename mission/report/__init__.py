"""Statistics of flown missions, report folders and their page."""

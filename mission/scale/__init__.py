"""Work on many processes and machines: flights on Ray, sweeps over seeds and settings, the search for settings."""

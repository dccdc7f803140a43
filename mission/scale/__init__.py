"""Work in many processes and on many machines: flights on Ray, sweeps over seeds and settings, searches."""

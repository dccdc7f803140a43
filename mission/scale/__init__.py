"""Work on many processes and machines: flights on Ray, and joined reports."""

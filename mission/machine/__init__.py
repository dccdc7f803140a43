"""The machine: its cores and accelerators, and files that are kept on its disk between runs."""

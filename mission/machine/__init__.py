"""The machine: its cores and accelerators, and what is kept on its disk between runs."""

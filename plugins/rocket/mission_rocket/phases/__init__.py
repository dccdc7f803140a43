"""Flight phases, one module each; entry points name them."""

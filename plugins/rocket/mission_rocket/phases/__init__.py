"""Flight phases, one module each; the entry points in pyproject.toml name them."""

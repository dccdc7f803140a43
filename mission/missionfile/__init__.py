"""From the bytes of a mission file to checked phases: models, reading, plugins, contract."""

UV = python3 -m uv run

.PHONY: test lint types bench docs site

test:
	$(UV) pytest

lint:
	$(UV) ruff check
	$(UV) ruff format --check

types:
	$(UV) ty check mission plugins/rocket/mission_rocket

bench:
	for script in benchmarks/*.py; do $(UV) python $$script || exit 1; done

docs:
	$(UV) python docs/generate.py

site:
	$(UV) --group docs zensical build --clean --strict

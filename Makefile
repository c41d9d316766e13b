# Both commands of the README set up what they need: a virtual environment in .venv with the package and its tools.
PYTHON ?= python3
RUN = .venv/bin/python -m

.PHONY: quickstart test test-all lint types benchmark clean

quickstart: .venv/installed
	@mkdir -p reports/quickstart
	$(RUN) pytest robustness_suites/quickstart -n 2 --dist worksteal \
		--prunerob-results=reports/quickstart/results.json \
		--prunerob-report=reports/quickstart/report.html
	@echo "Open the report in a browser: reports/quickstart/report.html"

test: lint types
	$(RUN) pytest -n 2 --dist worksteal -m "not slow"

test-all: lint types
	$(RUN) pytest -n 2 --dist worksteal
	$(RUN) pytest -m "not slow" tests/plugin

lint: .venv/installed
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: .venv/installed
	$(RUN) mypy

benchmark: .venv/installed
	$(RUN) benchmarks.autoattack

.venv/installed: pyproject.toml
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet -e ".[dev]"
	@touch $@

clean:
	rm -rf .venv .prunerob .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

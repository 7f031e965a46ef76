# The two commands of the README are `make demo` and `make test`; both make the environment they need.
PYTHON ?= python3
VENV ?= .venv
# The versions that CI ran; `make demo CONSTRAINTS=` takes the newest that pyproject.toml admits.
CONSTRAINTS ?= .ci/constraints.txt
BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

.PHONY: demo test slow check format configs lock clean

demo: $(VENV)/.installed
	$(BIN)/longvit demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow"

slow: $(VENV)/.installed-test  ## minutes: the whole demo, and the line on real tissue
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

format: $(VENV)/.installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

configs: $(VENV)/.installed  ## configs/reference from the config classes
	$(BIN)/python -m longvit.settings configs/reference

lock: $(VENV)/.installed-test  ## the versions of this environment as the constraints of the next
	$(BIN)/python -m pip freeze --exclude-editable > .ci/constraints.txt

clean:
	rm -rf demo build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(PIP_INSTALL) --editable .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(VENV)/bin/python
	$(PIP_INSTALL) --editable ".[test]"
	touch $@ $(VENV)/.installed

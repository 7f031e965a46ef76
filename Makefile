# The two commands of the README are `make demo` and `make test`; both make the environment they need.
PYTHON ?= python3
VENV ?= .venv
# The versions that CI ran; `make demo CONSTRAINTS=` takes the newest that pyproject.toml admits.
CONSTRAINTS ?= .ci/constraints.txt
# What `make bench-tiling` compares with (an environment of its own), and where it makes its slides (a GB or two).
VENV_HS2P ?= .venv-hs2p
BENCH ?= build/bench
SHARED ?= ../shared
BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS))

.PHONY: demo test slow notebooks check format configs lock bench-tiling bench-longnet clean

demo: $(VENV)/.installed
	$(BIN)/longvit demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow"

slow: $(VENV)/.installed-test  ## minutes: the whole demo, and the line on real tissue
	$(BIN)/python -m pytest -m slow

notebooks: $(VENV)/.installed-test  ## every notebook from its first cell to its last
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbmake --nbmake-timeout=300 --durations=5 notebooks

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

BENCH_SLIDES := $(addprefix $(BENCH)/,slide20.svs slide20_240.svs slide40.svs)
bench-tiling: $(VENV)/.installed $(VENV_HS2P)/.installed $(BENCH_SLIDES) $(BENCH)/slide20_240_dicom $(BENCH)/huge.svs
	$(BIN)/python tests/benchmarks/tiling.py --slide20 $(BENCH)/slide20.svs --slide20-240 $(BENCH)/slide20_240.svs \
		--dicom $(BENCH)/slide20_240_dicom --slide40 $(BENCH)/slide40.svs --huge $(BENCH)/huge.svs \
		--peer $(VENV_HS2P)/bin/python

bench-longnet: $(VENV)/.installed  ## half an hour, on a quiet machine
	$(BIN)/python tests/benchmarks/longnet.py

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

$(VENV_HS2P)/.installed: tests/benchmarks/hs2p.txt
	$(PYTHON) -m venv $(VENV_HS2P)
	$(VENV_HS2P)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

$(BENCH_SLIDES): MPP = 0.5
$(BENCH_SLIDES): TILE = 256
$(BENCH)/slide40.svs: MPP = 0.25
$(BENCH)/slide20_240.svs: TILE = 240
$(BENCH_SLIDES): | $(VENV)/.installed
	mkdir -p $(BENCH)
	$(BIN)/python $(SHARED)/tools/make_slide.py $@.part.svs --size 32768 32768 --tile $(TILE) --mpp $(MPP)
	mv $@.part.svs.truth.npz $@.truth.npz
	mv $@.part.svs $@

$(BENCH)/slide20_240_dicom: $(BENCH)/slide20_240.svs
	rm -rf $@ $@.part
	$(BIN)/python tests/benchmarks/dicom_slide.py $< $@.part
	mv $@.part $@

$(BENCH)/huge.svs: | $(VENV)/.installed
	mkdir -p $(BENCH)
	$(BIN)/python tests/benchmarks/huge_slide.py $@.part.svs --texture $(SHARED)/data/slides/CMU-1-Small-Region.svs
	mv $@.part.svs $@

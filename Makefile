# The README's two commands are `make demo` and `make test`. Both create the environment that they need.
PYTHON ?= python3
VENV ?= .venv
# Versions that CI ran, with hashes; `make demo CONSTRAINTS=` uses the newest versions that pyproject.toml admits.
CONSTRAINTS ?= .ci/constraints.txt
SUPPLY := .ci/supply_chain.py
# Number of processes of `make test`; each takes up to 2.5 GB.
WORKERS ?= 2
# Device and page of `make gpu-check`; `DEVICE=cpu` tries the script with small sizes.
DEVICE ?= cuda
GPU_PAGE ?= build/gpu_check.md
# Environment of `make audit-dependencies`, separate from the other environments.
VENV_AUDIT ?= .venv-audit
# Environment of the peer of `make bench-tiling`, and folder of its slides (one to two GB).
VENV_HS2P ?= .venv-hs2p
BENCH ?= build/bench
SHARED ?= ../shared
BIN := $(VENV)/bin
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test slow fuzz notebooks check format configs lock audit-dependencies sbom bench-tiling bench-longnet gpu-check clean

demo: $(VENV)/.installed
	$(BIN)/longvit demo

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses $(WORKERS) --dist worksteal

slow: $(VENV)/.installed  ## minutes: the whole demo, and the pipeline on real tissue
	$(BIN)/python -m pytest -m slow

fuzz: $(VENV)/.installed  ## hours: 10,000 damaged files of every kind that other programs write
	LONGVIT_FUZZ_CASES=10000 $(BIN)/python -m pytest -m slow tests/fuzz

notebooks: $(VENV)/.installed  ## every notebook from its first cell to its last
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --nbmake --nbmake-timeout=300 --durations=5 notebooks

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright
	$(BIN)/basedpyright --pythonplatform Windows  # names that only other systems have are in one module

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

configs: $(VENV)/.installed  ## configs/reference from the config classes
	$(BIN)/python -m longvit.config.yaml_files configs/reference

lock: | $(VENV)/bin/python  ## the newest versions that pyproject.toml admits, for this Python and machine, with hashes
	mkdir -p build
	$(PIP_INSTALL) --upgrade pip  # a new pip asks for the metadata of packages, an old pip downloads whole packages
	$(PIP_INSTALL) --dry-run --ignore-installed --report build/resolved.json ".[all]" "setuptools>=77"
	$(BIN)/python $(SUPPLY) lock < build/resolved.json > .ci/constraints.txt

audit-dependencies: $(VENV_AUDIT)/.installed  ## known vulnerabilities of the locked versions, from an online service
	mkdir -p build
	$(VENV_AUDIT)/bin/pip-audit --requirement .ci/constraints.txt --require-hashes --disable-pip --format json \
		--output build/audit.json || test -s build/audit.json
	$(VENV_AUDIT)/bin/python $(SUPPLY) findings < build/audit.json

sbom: | $(VENV)/bin/python  ## the bill of materials of a release, CycloneDX
	mkdir -p build
	$(BIN)/python $(SUPPLY) sbom < .ci/constraints.txt > build/sbom.json

BENCH_SLIDES := $(addprefix $(BENCH)/,slide20.svs slide20_240.svs slide40.svs)
bench-tiling: $(VENV)/.installed $(VENV_HS2P)/.installed $(BENCH_SLIDES) $(BENCH)/slide20_240_dicom $(BENCH)/huge.svs
	$(BIN)/python tests/benchmarks/tiling.py --slide20 $(BENCH)/slide20.svs --slide20-240 $(BENCH)/slide20_240.svs \
		--dicom $(BENCH)/slide20_240_dicom --slide40 $(BENCH)/slide40.svs --huge $(BENCH)/huge.svs \
		--peer $(VENV_HS2P)/bin/python

bench-longnet: $(VENV)/.installed  ## half an hour, on a quiet machine
	$(BIN)/python tests/benchmarks/longnet.py

gpu-check: $(VENV)/.installed  ## under eight minutes, on a CUDA machine: tests, parity, speed, memory, NCCL
	$(BIN)/python tests/benchmarks/gpu_check.py --device $(DEVICE) --out $(GPU_PAGE)

clean:
	rm -rf demo build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The locked hashes are for one Python and one kind of machine; elsewhere only the versions are used.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
ifeq ($(strip $(CONSTRAINTS)),)
	$(PIP_INSTALL) --editable ".[all]"
else
	@set -e; \
	if grep --quiet --line-regexp --fixed-strings "# $$($(BIN)/python $(SUPPLY) platform)" $(CONSTRAINTS); then \
		$(PIP_INSTALL) --require-hashes --requirement $(CONSTRAINTS); \
		$(PIP_INSTALL) --no-deps --no-build-isolation --editable .; \
	else \
		echo "no hashes are locked for $$($(BIN)/python $(SUPPLY) platform): only the versions are used"; \
		$(BIN)/python $(SUPPLY) versions < $(CONSTRAINTS) > $(VENV)/versions.txt; \
		$(PIP_INSTALL) --constraint $(VENV)/versions.txt --editable ".[all]"; \
	fi
endif
	touch $@

$(VENV_AUDIT)/.installed:
	$(PYTHON) -m venv $(VENV_AUDIT)
	$(VENV_AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	touch $@

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

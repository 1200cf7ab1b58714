PYTHON ?= python3
VENV := .venv
LATEST := .venv-latest
# Installs into the environment whose file is made. Only the modules that are imported are compiled, when they are: an
# environment is ready a minute earlier. `.ci/run` puts uv in its place.
INSTALL = $(@D)/bin/python -m pip install --no-compile
# Without compiled modules, every process that starts TensorFlow would need 7 s more.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: environments demo weights docs test test-latest test-newest test-jax test-torch lint clean

environments: $(VENV)/test-ready $(LATEST)/ready

# One fold of RecSleepNet learns from eight short synthetic nights, and stages the recording of a ninth sleeper.
demo: $(VENV)/ready
	$(VENV)/bin/python -m examples.demo

# The published weights of RecSleepNet, trained on Sleep-EDF-78, into pretrained_model/.
weights: $(VENV)/ready
	$(VENV)/bin/python -m recsleep.weights

# The manual, built without network in some minutes. Its notebooks stage with the demo's model; a warning counts as an
# error.
docs: $(VENV)/test-ready demo
	$(VENV)/bin/python -m sphinx --jobs 2 --fail-on-warning --keep-going docs docs/_build/html
	@echo "The manual: docs/_build/html/index.html"

# SlipCover counts the lines that ran, at a small part of the time that tracing takes. It takes Python's frozen modules
# for a file ``frozen`` in this folder.
test: $(VENV)/test-ready
	$(VENV)/bin/python -m slipcover --source . --omit "*/frozen,.venv*,build/*,benchmarks/*,tests/*" --skip-covered \
		-m pytest -n 2

# The suite on the newest libraries, except the longest tests: those of the models on JAX and PyTorch, all others on
# TensorFlow, with which the commands train.
test-latest: test-newest test-jax test-torch

test-newest: $(LATEST)/ready
	$(LATEST)/bin/python -m pytest -n 2 -m "not long and not model"

# JAX compiles every operation for every shape; without XLA's optimisations it does so a quarter faster, and what one of
# the two processes compiled serves the other.
test-jax: $(LATEST)/ready
	JAX_COMPILATION_CACHE_DIR=$(CURDIR)/build/jax JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
		JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1 JAX_DISABLE_MOST_OPTIMIZATIONS=1 KERAS_BACKEND=jax \
		$(LATEST)/bin/python -m pytest -n 2 -m "model and not whole_model"

test-torch: $(LATEST)/ready
	KERAS_BACKEND=torch $(LATEST)/bin/python -m pytest -n 2 -m model

lint: $(VENV)/test-ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) $(LATEST) build docs/_build *.egg-info

$(VENV)/ready: pyproject.toml requirements.txt
	@echo "The packages are installed into $(VENV): 4 GB of disk, and some minutes."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	touch $@

$(VENV)/test-ready: $(VENV)/ready
	$(INSTALL) --quiet --editable ".[docs,test]"
	touch $@

# The newest libraries contradict requirements.txt, so what the tests need is read from the extra and not installed as
# one. PyTorch comes first, by pip: this is its build for CPUs where pip knows one.
$(LATEST)/ready: pyproject.toml requirements-latest.txt
	$(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/python -m pip install --no-compile --quiet torch==2.13.0
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["test"], sep="\n")' \
		| $(INSTALL) --quiet jax --requirement requirements-latest.txt --requirement /dev/stdin
	touch $@

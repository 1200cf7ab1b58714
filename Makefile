PYTHON ?= python3
VENV := .venv
LATEST := .venv-latest
# Only the modules that are imported are compiled, when they are: an environment is ready a minute earlier.
PIP_INSTALL := -m pip install --quiet --no-compile

.PHONY: environments demo weights test test-latest test-newest test-jax test-torch lint clean

environments: $(VENV)/test-ready $(LATEST)/ready

# One fold of RecSleepNet on short synthetic nights, from nothing to a table of scores.
demo: $(VENV)/ready
	$(VENV)/bin/python trainer.py --db synthetic --data data/demo --from_fold 0 --to_fold 0 --suffix demo --set hours=2 \
		--set reconstruction_passes=1 --set passes=12 --set batch_nights=2 --set learning_rate=4e-4 --set dropout=0.2
	$(VENV)/bin/python predict.py --db synthetic --data data/demo --dir output/synthetic_demo

# The published weights of RecSleepNet, trained on Sleep-EDF-78, into pretrained_model/.
weights: $(VENV)/ready
	$(VENV)/bin/python -m recsleep.weights

# SlipCover counts the lines that ran, at a small part of the time that tracing takes. It takes Python's frozen modules
# for a file ``frozen`` in this folder.
test: $(VENV)/test-ready
	$(VENV)/bin/python -m slipcover --source . --omit "*/frozen,.venv*,benchmarks/*,tests/*" --skip-covered \
		-m pytest -n 2

# The suite on the newest TensorFlow, but for the longest tests; the models' tests on JAX and PyTorch too.
test-latest: test-newest test-jax test-torch

test-newest: $(LATEST)/ready
	$(LATEST)/bin/python -m pytest -n 2 -m "not long"

# JAX compiles every operation for every shape; without XLA's optimisations it does so a quarter faster.
test-jax: $(LATEST)/ready
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 KERAS_BACKEND=jax $(LATEST)/bin/python -m pytest -n 2 -m "model and not whole_model"

test-torch: $(LATEST)/ready
	KERAS_BACKEND=torch $(LATEST)/bin/python -m pytest -n 2 -m model

lint: $(VENV)/test-ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) $(LATEST) build *.egg-info

$(VENV)/ready: pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python $(PIP_INSTALL) --editable .
	touch $@

$(VENV)/test-ready: $(VENV)/ready
	$(VENV)/bin/python $(PIP_INSTALL) --editable ".[test]"
	touch $@

# The newest libraries contradict requirements.txt, so what the tests need is read from the extra and not installed as
# one. PyTorch comes first: this is its build for CPUs where one is at hand.
$(LATEST)/ready: pyproject.toml requirements-latest.txt
	$(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/python $(PIP_INSTALL) torch==2.13.0
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["test"], sep="\n")' \
		| $(LATEST)/bin/python $(PIP_INSTALL) jax --requirement requirements-latest.txt --requirement /dev/stdin
	touch $@

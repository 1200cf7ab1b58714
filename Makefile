PYTHON ?= python3
VENV := .venv
LATEST := .venv-latest

.PHONY: demo test test-latest lint clean

# One fold of RecSleepNet on synthetic nights, from nothing to a table of scores.
demo: $(VENV)/ready
	$(VENV)/bin/python trainer.py --db synthetic --from_fold 0 --to_fold 0 --suffix demo \
		--set reconstruction_passes=1 --set passes=8 --set batch_nights=2 --set learning_rate=2e-4 --set dropout=0.2
	$(VENV)/bin/python predict.py --db synthetic --dir output/synthetic_demo

test: $(VENV)/test-ready
	$(VENV)/bin/python -m pytest -n 2

# The suite on the newest TensorFlow, but for the longest trainings; the models' tests on JAX and PyTorch too.
test-latest: $(LATEST)/ready
	$(LATEST)/bin/python -m pytest -n 2 -m "not long"
	KERAS_BACKEND=jax $(LATEST)/bin/python -m pytest -n 2 -m "model and not whole_model"
	KERAS_BACKEND=torch $(LATEST)/bin/python -m pytest -n 2 -m model

lint: $(VENV)/test-ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf $(VENV) $(LATEST)

$(VENV)/ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement requirements.txt
	touch $@

$(VENV)/test-ready: $(VENV)/ready requirements-test.txt
	$(VENV)/bin/python -m pip install --quiet --requirement requirements-test.txt
	touch $@

# torch before the rest: this is PyTorch's CPU build where one is at hand.
$(LATEST)/ready: requirements-latest.txt requirements-test.txt
	$(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/python -m pip install --quiet torch==2.13.0
	$(LATEST)/bin/python -m pip install --quiet jax --requirement requirements-latest.txt --requirement requirements-test.txt
	touch $@

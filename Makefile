# Everything a newcomer or a developer types. Python 3.11 or newer and make are all that is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where the CPU build of torch comes from when the configured index does not have it.
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

.PHONY: quickstart test check install install-dev tiny-ko clean

## Fine-tune the embedded Korean model and ask it before and after
quickstart: $(VENV)/.installed
	$(BIN)/jinmaek train quickstart

## Style, types, import directions, then all tests
test: check
	$(BIN)/python -m pytest -q -n auto --dist loadfile

check: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests bench tiny_ko
	$(BIN)/ruff format --check src tests bench tiny_ko
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

## Make the embedded model again from its sources in tiny_ko/, into build/tiny-ko. 80 s on a GPU; without one only
## a sixtieth of the training, to see it work. Put it into src/jinmaek/assets once bench/quickstart.py likes it.
tiny-ko: $(VENV)/.installed
	$(BIN)/python -m tiny_ko.make --out build/tiny-ko $(if $(shell command -v nvidia-smi),--device cuda)

$(VENV)/.torch: constraints-cpu.txt
	$(PYTHON) -m venv $(VENV)
	@if [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
		echo "No NVIDIA GPU here: installing the CPU build of torch."; \
		$(BIN)/pip install -q --disable-pip-version-check -r constraints-cpu.txt 2>/dev/null || \
		$(BIN)/pip install --disable-pip-version-check -r constraints-cpu.txt --index-url $(TORCH_CPU_INDEX); \
	else \
		$(BIN)/pip install --disable-pip-version-check -c constraints.txt torch; \
	fi
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml constraints.txt
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache

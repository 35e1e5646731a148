# gruard: from a recording to a detector on the device. `make` lists the usual targets, `make
# help-all` all of them.
#
# Without PYTHON everything is installed into .venv, from pyproject.toml and constraints.txt.
# With PYTHON=/path/to/python (conda, an activated environment, …) that interpreter is used and
# nothing is installed into it.

PYTHON    ?=
RUN       ?= runs/watch
DATA      ?=
ARGS      ?=
VERSION   ?= 1
BUNDLE    ?= $(RUN)/bundle/$(notdir $(RUN))-$(VERSION).gruard
SOURCE    ?=
SINK      ?= -
ROOM      ?=
FUZZ      ?=

ifeq ($(PYTHON),)
PY        := .venv/bin/python
READY     := .venv/.ready
BASE      := $(shell command -v python3.11 || command -v python3)
else
PY        := $(PYTHON)
READY     := environment
endif

WATCH     := data/watch
PEOPLE     = $(foreach n,$(1),$(WATCH)/PEN/person$(n)-right.csv)
DEMO_RUN  := runs/watch
DEMO_BUNDLE := $(DEMO_RUN)/bundle/watch-1.gruard
# Faults of the demonstration: a sensor drops out, then the worker hangs.
DEMO_FAULTS := nan:az@260+40,hang@780

# Marks that the native engine was built in this checkout, or that there is no C compiler.
CORE      := build/engine

export OPENBLAS_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help help-all demo fleet fleet-rollout train convert audit validate run engine firmware firmware-faults \
        test test-fast test-long test-arm arm-trees test-service test-vm test-firmware coverage \
        fuzz fuzz-core lint wheel wheels benchmark benchmark-accuracy benchmark-arm benchmark-board \
        benchmark-calibration benchmark-clock benchmark-diagnosis benchmark-engines \
        benchmark-fleet benchmark-gaps benchmark-life benchmark-nab benchmark-records \
        benchmark-recurring benchmark-short benchmark-step benchmark-types faults fleet-engines \
        soak clean environment

# `make help` lists the texts after `##`, `make help-all` also those after `#-`.
help: #- list the usual targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

help-all: ## list every target: long tests, emulated boards, benchmarks
	@awk -F ':.*#[#-] ' '/^[a-z-]+:.*#[#-] / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

FLEET     := data/fleet
fleet: $(READY) $(CORE) #- five minutes: 200 simulated pumps, from data to runs/fleet/report.html
	@test -d $(FLEET) || $(PY) -m fleet simulate --out $(FLEET) --assets 200
	$(PY) -m fleet train $(FLEET)/healthy.csv --out runs/fleet $(ARGS)
	$(PY) -m fleet rescore runs/fleet $(FLEET)/later.csv --out runs/fleet-later

fleet-engines: $(READY) $(CORE) #- minutes: 260 engines of DATA=FOLDER, learned and scored as a fleet
	$(PY) -m benchmarks.fleet_engines $(or $(DATA),data/engines) runs/engines --out docs/fleet-costs.md $(ARGS)

fleet-rollout: $(READY) $(CORE) #- ten minutes: 30 devices take updates in stages, with a bad version (docs/fleet.md)
	$(PY) -m tests.fleet.fleet_rig $(ARGS)

demo: demo/timeline.png ## from real data to a supervised detector and its picture
	@echo
	@echo "demo/timeline.png   what happened, as a picture"
	@echo "demo/report.html    the same with figures"
	@echo "$(DEMO_BUNDLE)   the bundle, with its proof in report.html"

train: $(READY) $(if $(DATA),,$(WATCH)/README.txt) ## train on DATA=my.csv into RUN=runs/pump
ifeq ($(DATA),)
	@$(MAKE) --no-print-directory $(DEMO_RUN)/weights.npz
else
	$(PY) -m train fit $(DATA) --out $(RUN) $(ARGS)
endif

convert: $(READY) ## quantise, calibrate and validate RUN=runs/pump
	$(PY) -m convert $(RUN) --version $(VERSION) $(ARGS)

audit: $(READY) #- list the operators of BUNDLE=... and the targets that can run it
	$(PY) -m convert audit $(BUNDLE) $(ARGS)

validate: $(READY) #- judge BUNDLE=... again, int8 against float
	$(PY) -m convert validate $(BUNDLE) $(ARGS)

run: $(READY) ## watch SOURCE=file.csv or - with BUNDLE=..., supervised
	$(PY) -m edge_runtime run $(BUNDLE) --source "$(or $(SOURCE),$(WATCH)/demo.csv)" --sink $(SINK) $(ARGS)

# On emulated microcontrollers: build for two boards, compare all engines, inject faults.
BOARDS    := mps2-an386 mps3-an547
STEPS     ?= 100000
firmware: $(READY) $(CORE) $(DEMO_BUNDLE)/manifest.json #- four minutes: the demonstration's bundle on two emulated microcontrollers
	@for board in $(BOARDS); do $(PY) -m firmware_harness build $(DEMO_BUNDLE) --board $$board || exit; done
	$(PY) -m firmware_harness compare $(DEMO_BUNDLE) $(call PEOPLE,09) --steps $(STEPS) $(ARGS)
	$(PY) -m firmware_harness watchdog $(DEMO_BUNDLE) $(call PEOPLE,09) $(ARGS)
	$(PY) -m firmware_harness cost $(DEMO_BUNDLE) $(ARGS)

firmware-faults: $(READY) $(CORE) $(DEMO_BUNDLE)/manifest.json #- a quarter of an hour: 2,000 flipped bits on the emulated boards, into docs/firmware.md
	$(PY) -m benchmarks.board_flips $(DEMO_BUNDLE) $(WATCH)/demo.csv --out docs/firmware.md $(ARGS)

# Test processes, one more than cores, because some tests wait for the clock, a broker or another
# process. ARGS='-n 0 --pdb FILE' for one process.
JOBS      := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
# The tests start a thousand processes, which must not each compile the same files.
test test-fast test-long: export PYTHONDONTWRITEBYTECODE =
test: $(READY) $(CORE) lint ## lint, types and tests
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

# The tests of a room of edge_runtime are in the folder of the same name, those of its top-level files
# next to these folders. Every test goes to the next free process.
ROOMS     := $(patsubst edge_runtime/%/__init__.py,%,$(wildcard edge_runtime/*/__init__.py))
ROOM_TESTS = $(if $(filter top,$(ROOM)),$(wildcard tests/edge_runtime/test_*.py),$(filter %/$(ROOM),$(ROOMS:%=tests/edge_runtime/%)))
test-fast: $(READY) $(CORE) #- half a minute: the device tests of ROOM=sources, without TensorFlow
ifeq ($(filter $(ROOM),$(ROOMS) top),)
	@echo "make test-fast ROOM=NAME, of these: $(sort $(ROOMS)) top (the files at the top)"; exit 2
else
	$(PY) -m pytest -n $(JOBS) --dist worksteal -m "not slow and not long" $(ROOM_TESTS) $(ARGS)
endif

test-long: $(READY) $(CORE) #- half an hour or more: what takes seconds each, such as conversions, trainings, power cuts
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m long $(ARGS)

test-arm: $(READY) $(CORE) arm-trees #- some minutes: the same bits on emulated aarch64 and armv7 (docs/arm.md)
	$(PY) -m pytest -m arm -n 0 tests/arm $(ARGS)

# Debian for both Arm architectures, in build/arm.
arm-trees: $(READY)
	$(PY) -m tests.arm.arm_userland

test-service: $(READY) #- three minutes, root: the service under a real systemd (docs/service.md)
	$(PY) -m tests.service.systemd_tree
	$(PY) -m pytest -m service $(ARGS)

test-vm: $(READY) #- minutes: a hung supervisor, a hardware reset, a whole emulated machine (docs/service.md)
	$(PY) -m tests.vm.machine_tree
	$(PY) -m pytest -m vm $(ARGS)

test-firmware: $(READY) #- half an hour: eight emulated microcontrollers with injected faults; other ecosystems' tools
	$(PY) -m tests.firmware_harness.ecosystem_tools
	$(PY) -m pytest -m firmware $(ARGS)

fuzz: $(READY) #- twenty minutes: 100,000 damaged bundles, as many messages per source; FUZZ=N for fewer
	FUZZ=$(FUZZ) $(PY) -m pytest -m fuzz -s $(ARGS)

fuzz-core: $(READY) #- minutes: libFuzzer on the C core, a million packed bundles; FUZZ=N for more
	FUZZ=$(FUZZ) $(PY) -m pytest -m fuzz tests/fuzz/test_core_fuzz.py -s $(ARGS)

lint: $(READY) #- lint and types only
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

COVERAGE  := $(PY) -m coverage
coverage: export PYTHONPATH := $(CURDIR)
coverage: $(READY) $(CORE) #- a quarter of an hour: which branches no test takes, by room
	@rm -rf build/coverage && mkdir -p build/coverage
	-$(COVERAGE) run -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)
	$(COVERAGE) combine --quiet && $(COVERAGE) json --quiet -o build/coverage/report.json
	$(PY) -m tests.coverage_rooms build/coverage/report.json

wheel: $(READY) #- build the device wheel without the engine, and the source archive, into dist/
	GRUARD_PURE=1 $(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	$(PY) -c 'from setuptools.build_meta import build_sdist; build_sdist("dist")' >/dev/null
	@ls dist/gruard-*.whl dist/gruard-*.tar.gz

# One for each processor of TARGETS in setup.py.
wheels: wheel ## build the device wheels, with the native engine, into dist/
	@for target in x86_64 aarch64 armv7l; do GRUARD_TARGET=$$target \
	    $(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . || exit; done
	@ls dist/gruard-*-abi3-*.whl

engine: $(READY) $(CORE) #- rebuild the native engine (kernel core-c) after a change of its C code

$(CORE): setup.py edge_runtime/native/module.c $(wildcard core/*)
	$(PY) setup.py -q build_ext --inplace
	@touch $@

benchmark: $(READY) #- training speed, start-up, memory and step time on this machine
	$(PY) -m benchmarks.train
	$(PY) -m benchmarks.runtime $(DEMO_BUNDLE)

benchmark-accuracy: $(READY) $(if $(PYTHON),,.venv/.benchmark) #- hours: gruard and simpler detectors
	$(PY) -m benchmarks.accuracy $(ARGS)

benchmark-learn: $(READY) $(CORE) #- a minute: what gruard learn costs, into docs/learn.md
	$(PY) -m benchmarks.learn --out docs/learn.md

benchmark-diagnosis: $(READY) #- minutes: are the right channel and kind of fault named?
	$(PY) -m benchmarks.diagnosis $(ARGS)

CLOCK     := data/clock
benchmark-clock: $(READY) $(CORE) #- half an hour: the cost of a bad clock and lost samples, into docs/clock.md
	@rm -rf $(CLOCK) runs/clock-linear runs/clock-gated
	$(PY) -m train simulate --out $(CLOCK)/learn
	$(PY) -m train simulate --out $(CLOCK)/watch --seed 500
	$(PY) -m train fit $(CLOCK)/learn/healthy.csv --out runs/clock-linear --model linear
	$(PY) -m train fit $(CLOCK)/learn/healthy.csv --out runs/clock-gated --model gated --seed 1 --gru-units 16
	@for model in linear gated; do $(PY) -m convert runs/clock-$$model || exit; done
	$(PY) -m benchmarks.clock runs/clock-*/bundle/*.gruard --out docs/clock.md \
	    --healthy $(CLOCK)/watch/healthy.csv --faulty $(CLOCK)/watch/faults.csv $(ARGS)

benchmark-fleet: $(READY) $(CORE) #- minutes: what a fleet costs, into docs/fleet-costs.md
	$(PY) -m benchmarks.fleet --out docs/fleet-costs.md $(ARGS)

benchmark-gaps: $(READY) $(CORE) #- half an hour: how many missing rows can the state bridge?
	$(PY) -m benchmarks.gaps --out docs/gate.md $(ARGS)

benchmark-life: $(READY) $(CORE) #- half an hour: sixty days of machines, with and without gruard relearn
	$(PY) -m benchmarks.life --out docs/life.md $(ARGS)

benchmark-nab: $(READY) $(CORE) #- a minute: single channels, each with its own threshold
	$(PY) -m benchmarks.nab --out docs/accuracy.md $(ARGS)

benchmark-records: $(READY) $(CORE) #- half an hour: records of a fleet, into docs/fleet-records.md
	$(PY) -m benchmarks.records common --out docs/fleet-records.md
	$(PY) -m benchmarks.records cost --out docs/fleet-records.md
	$(PY) -m benchmarks.records drift --out docs/fleet-records.md

benchmark-short: $(READY) $(CORE) #- minutes: how good is a detector that learned from minutes of data?
	$(PY) -m benchmarks.short --out docs/changes.md $(ARGS)

benchmark-recurring: $(READY) $(CORE) #- minutes: how many false alarms recur at one time of day?
	$(PY) -m benchmarks.recurring --out docs/changes.md $(ARGS)

benchmark-engines: $(READY) $(CORE) #- half a minute: is the wear of engines in six modes detected in time?
	$(PY) -m benchmarks.engines --out docs/engines.md $(ARGS)

benchmark-step: $(READY) $(CORE) $(if $(PYTHON),,.venv/.benchmark) #- minutes: the time of a step on every engine
	$(PY) -m benchmarks.step --out docs/engine.md $(ARGS)

benchmark-arm: $(READY) #- minutes: instructions of a step on emulated 64-bit Arm
	$(PY) -m benchmarks.arm_cost --out docs/engine.md $(ARGS)

benchmark-types: $(READY) $(CORE) #- minutes: the model of a type beside an asset's own, into docs/fleet-costs.md
	$(PY) -m benchmarks.fleet_types --out docs/fleet-costs.md $(ARGS)

benchmark-board: $(READY) #- minutes: the cost of a step on two emulated boards
	$(PY) -m benchmarks.board_cost --out docs $(ARGS)

benchmark-calibration: $(READY) #- two minutes: does a threshold keep its target?
	$(PY) -m benchmarks.calibration --out docs $(ARGS)

faults: $(READY) $(DEMO_BUNDLE)/manifest.json #- hours: inject all faults, and write docs/reliability.md
	$(PY) -m tests.campaign $(DEMO_BUNDLE) --out docs/reliability.md $(ARGS)

soak: $(READY) $(DEMO_BUNDLE)/manifest.json #- ten minutes (ARGS='--minutes 600' for more): does memory grow? into docs/reliability.md
	$(PY) -m tests.campaign.soak $(DEMO_BUNDLE) --out docs/reliability.md $(ARGS)

clean: #- remove what make built, except .venv, data and your runs
	rm -rf demo dist build runs/watch .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# The environment.

.venv/.ready: pyproject.toml constraints.txt
	@echo "making .venv (the first time this downloads about 300 MB)"
	@test -x .venv/bin/python || $(BASE) -m venv .venv
	$(PY) -m pip install --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[workstation,fleet,test]'
	@touch $@

# Detectors of other libraries, only for benchmarks.
.venv/.benchmark: .venv/.ready
	$(PY) -m pip install --disable-pip-version-check \
	    --constraint constraints.txt --editable '.[benchmark]'
	@touch $@

environment:
	@$(PY) -c "import sys; from importlib.util import find_spec; \
	  sys.exit(not all(map(find_spec, 'click numpy scipy matplotlib tensorflow yaml'.split())))" || { \
	  echo "$(PY) lacks a package; make installs nothing into your environment. Run:"; \
	  echo "  $(PY) -m pip install -c constraints.txt '.[workstation,fleet,test]'"; exit 2; }

# The files of the demonstration.

$(WATCH)/README.txt: | $(READY)
	$(PY) -m train watch --out $(WATCH)

$(DEMO_RUN)/weights.npz: | $(READY) $(WATCH)/README.txt
	$(PY) -m train fit $(call PEOPLE,01 02 03 04 05) --out $(DEMO_RUN) \
	    $(addprefix --calibrate ,$(call PEOPLE,06 07 08)) $(addprefix --test ,$(call PEOPLE,09))

$(DEMO_BUNDLE)/manifest.json: $(DEMO_RUN)/weights.npz
	rm -rf $(DEMO_BUNDLE)
	$(PY) -m convert $(DEMO_RUN)

demo/records.jsonl: $(DEMO_BUNDLE)/manifest.json
	@mkdir -p demo
	$(PY) -m edge_runtime run $(DEMO_BUNDLE) --source $(WATCH)/demo.csv --sink $@ --force \
	    --rate 100 --inject $(DEMO_FAULTS)

demo/timeline.png: demo/records.jsonl
	$(PY) -m convert timeline $< --data $(WATCH)/demo.csv --bundle $(DEMO_BUNDLE) --out demo

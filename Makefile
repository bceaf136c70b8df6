# Isobar. Type `make` to see what there is to type.

# What is pinned besides go.mod: linters are tools, not dependencies.
STATICCHECK_VERSION := v0.8.2
DEADCODE_VERSION    := v0.52.0
NFPM_VERSION        := v2.43.4
HELM_VERSION        := v3.22.0

PYTHON   ?= python3
MINUTES  ?= 10
FUZZTIME ?= 30s
RUN_ARGS ?=
# The version that the binaries say; without one they name their commit.
VERSION  ?=
BENCH_ARGS ?=
SOAK_ARGS  ?=
CONFORM_ARGS ?=
# Packages tested at a time, and the longest a package may take. The suite is made for two
# cores, and a quarter of its time is waiting; on many more, ten tests that each take a
# gigabyte would meet in memory.
TEST_P       ?= 3
TEST_TIMEOUT ?= 10m
# What to test: `make test PKG=./heap/...` narrows it.
PKG ?= ./...

GO_BUILD := CGO_ENABLED=0 go build -trimpath $(if $(VERSION),-ldflags '-X main.version=$(VERSION)')

VENV  := $(CURDIR)/.venv
TOOLS := $(CURDIR)/.tools
STATICCHECK := $(TOOLS)/staticcheck-$(STATICCHECK_VERSION)
DEADCODE    := $(TOOLS)/deadcode-$(DEADCODE_VERSION)
NFPM        := $(TOOLS)/nfpm-$(NFPM_VERSION)

.DEFAULT_GOAL := help
# The steps of `make test` are in order, and the tests measure time.
.NOTPARALLEL:
.PHONY: help run build isobar isobar-cuda bus-test bus-test-cuda test unit fmt fmt-check vet lint invariants fuzz bench soak pressure-lab numa-lab conform package package-check tour tools tools-deploy promtool python python-client javascript clean need-go need-cc

help: ## list the targets
	@echo "usage: make TARGET"
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: isobar isobar-cuda ## build and start a node that drops everything when it ends (RUN_ARGS='--device ram:ram-0=1GiB' …)
	@exec bin/isobar run --ephemeral $(RUN_ARGS)

build: isobar isobar-cuda bus-test ## build bin/isobar and bin/bus-test, static, and bin/isobar-cuda with the driver of GPUs; without a C compiler

isobar: need-go
	$(GO_BUILD) -o bin/isobar ./cmd/node

isobar-cuda: need-go
	$(GO_BUILD) -tags cuda -o bin/isobar-cuda ./cmd/node

bus-test: need-go
	$(GO_BUILD) -o bin/bus-test ./cmd/bus-test

bus-test-cuda: need-go ## build bin/bus-test-cuda, whose own nodes can use GPUs
	$(GO_BUILD) -tags cuda -o bin/bus-test-cuda ./cmd/bus-test

.PHONY: cuda-test
cuda-test: need-go ## pack the tests of the GPU driver into bin/cuda.test.gz, to be run on a GPU host with ISOBAR_CUDA=real
	CGO_ENABLED=0 go test -c -trimpath -ldflags '-s -w' -o bin/cuda.test ./device/cuda
	gzip -9 -f -k bin/cuda.test

.PHONY: gpu-check
gpu-check: need-go ## pack what measures a GPU host without a network into bin/gpu-check; there, run its script gpu-check
	PYTHON=$(PYTHON) scripts/gpucheck/pack.sh bin/gpu-check

# What needs no race detector is compiled as the programs are: on a new machine once, for all of it.
vet lint invariants gpu-nodes: export CGO_ENABLED := 0
vet lint invariants gpu-nodes: export GOFLAGS := $(GOFLAGS) -trimpath

test: need-go need-cc python javascript tools promtool fmt-check vet lint invariants python-client gpu-nodes unit ## everything that CI runs; installs what it needs into .venv and .tools

# The last step of `make test`, so that its output ends with go test's own summary. Some tests
# compare with reference implementations in Python.
unit: export ISOBAR_PYTHON := $(VENV)/bin/python
unit: need-go need-cc python
	@echo "== go test -race"
	go test -race -count=1 -p $(TEST_P) -timeout $(TEST_TIMEOUT) $(PKG)

fmt: need-go ## format the Go code
	gofmt -w .

fmt-check: need-go
	@echo "== gofmt"
	@bad=$$(gofmt -l .) || exit 1; \
	if [ -n "$$bad" ]; then echo "not formatted (make fmt does it):"; echo "$$bad"; exit 1; fi

vet: need-go
	@echo "== go vet"
	go vet $(PKG)
	go vet -tags cuda ./node ./cmd/node ./cmd/bus-test

lint: need-go tools ## run staticcheck (its settings: staticcheck.conf) and look for code that nothing reaches
	@echo "== staticcheck"
	$(STATICCHECK) $(PKG)
	$(STATICCHECK) -tags $(TAG) $$(scripts/tagged.sh $(TAG))
	@echo "== deadcode (what neither a program nor a test reaches)"
	@dead=$$($(DEADCODE) -test ./...) || exit 1; \
	dead=$$(echo "$$dead" | grep -v 'unreachable func: Example'); \
	if [ -n "$$dead" ]; then echo "$$dead"; exit 1; fi

# Packages with this tag walk every structure after every change.
TAG := invariants

# What only programs with the driver of GPUs do; here on the fake one.
.PHONY: gpu-nodes
gpu-nodes: need-go need-cc
	@echo "== go test -tags cuda"
	go test -count=1 -timeout $(TEST_TIMEOUT) -tags cuda -run GPUs ./cmd/bus-test

invariants: need-go ## test with every structure checked after every change (build tag invariants)
	@echo "== go test -tags $(TAG)"
	go test -count=1 -p $(TEST_P) -timeout $(TEST_TIMEOUT) -tags $(TAG) $$(scripts/tagged.sh $(TAG))

fuzz: need-go ## run every fuzzer for FUZZTIME (30s) each
	@scripts/fuzzers.sh | while read -r dir name; do \
		echo "== $$dir $$name"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) $$dir </dev/null || exit 1; done

bench: bus-test ## measure a node of its own against the raw echo of the same NATS server (one JSON object)
	bin/bus-test bench --json --embedded $(BENCH_ARGS)

# TRACES= names another folder of allocation traces.
.PHONY: bench-heap
bench-heap: need-go ## replay traces of allocations and of model requests through the heap: tables, then one JSON object (TRACES=folder)
	@go run ./cmd/bench-heap $(if $(TRACES),-traces '$(TRACES)') $(BENCH_ARGS)

.PHONY: bench-eviction
bench-eviction: need-go ## replay a trace of model requests with every eviction policy: tables, then one JSON object (TRACES=folder)
	@go run ./cmd/bench-eviction $(if $(TRACES),-traces '$(TRACES)') $(BENCH_ARGS)

.PHONY: pressure-proof
pressure-proof: need-go ## days of noise, ramps and a million random traces through the pressure core: tables (minutes)
	ISOBAR_PRESSURE_PROOF=long go test -count=1 -timeout 60m -run 'TestProof' ./pressure
	go test -run '^$$' -bench . -benchtime 2s -cpu 1 ./pressure

soak: bus-test ## random load against a model of what must be true, for MINUTES (10)
	bin/bus-test soak --minutes $(MINUTES) $(SOAK_ARGS)

pressure-lab: bus-test ## real control groups: a foreign process grows against a full warm tier; needs root, and QEMU for its second half
	scripts/pressure-lab.sh

numa-lab: bus-test ## a virtual machine of two NUMA nodes: memory lies on the node of its device; needs QEMU
	scripts/numa-lab.sh

conform: bus-test ## check a node of its own against the wire contract, command by command (CONFORM_ARGS='--quiet' …)
	bin/bus-test conform --embedded $(CONFORM_ARGS)

package: need-go python $(NFPM) ## build archive, deb and rpm for amd64 and arm64, and the Python client's wheel, into dist, with checksums (VERSION=1.2.3)
	VERSION='$(VERSION)' NFPM=$(NFPM) scripts/package.sh dist amd64 arm64
	VERSION='$(VERSION)' scripts/wheel.sh dist $(VENV)/bin/python

package-check: need-go $(NFPM) ## build the packages twice, compare them, install the deb into a scratch root and read the rpm
	ISOBAR_NFPM=$(NFPM) go test -count=1 -v -run 'TestPackage' ./deploy

tour: isobar ## run the README's tour and write its output into the README
	docs/tour.sh > docs/tour.txt
	$(PYTHON) scripts/readme-tour.py docs/tour.txt README.md

tools: need-go $(STATICCHECK) $(DEADCODE) ## install the linters into .tools

$(STATICCHECK):
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) GOFLAGS=-trimpath CGO_ENABLED=0 go install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)
	@mv $(TOOLS)/staticcheck $@

$(DEADCODE):
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) GOFLAGS=-trimpath CGO_ENABLED=0 go install golang.org/x/tools/cmd/deadcode@$(DEADCODE_VERSION)
	@mv $(TOOLS)/deadcode $@

$(NFPM):
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) GOFLAGS= go install github.com/goreleaser/nfpm/v2/cmd/nfpm@$(NFPM_VERSION)
	@mv $(TOOLS)/nfpm $@

# The tests use what is on the PATH or here. Helm takes minutes to build: not for every run.
tools-deploy: promtool $(TOOLS)/helm ## install promtool and helm into .tools, with which the tests check deploy/ more closely

promtool:
	@scripts/promtool.sh $(TOOLS)

$(TOOLS)/helm:
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) GOFLAGS= go install helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)

python: $(VENV)/.installed ## install the tests' Python packages into .venv

$(VENV)/.installed: requirements-test.txt
	@command -v $(PYTHON) >/dev/null || { echo "The tests need Python 3.11 or later: apt-get install python3 python3-venv, or set PYTHON=."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "The tests need Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Set PYTHON=."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments: apt-get install python3-venv"; exit 1; }
	@rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-input --no-deps -r requirements-test.txt
	@touch $@

python-client: need-go python ## test the Python client against a node that is built here
	@echo "== mypy clients/python"
	cd clients/python && $(VENV)/bin/python -B -m mypy --cache-dir $(VENV)/mypy
	@echo "== pytest clients/python"
	cd clients/python && $(VENV)/bin/python -B -m pytest

# The JavaScript sample runs in the tests where there is an npm.
javascript: ## install the JavaScript sample's packages into examples/javascript
	@cd examples/javascript && { command -v npm >/dev/null && npm ci --silent --no-audit --no-fund || echo "no npm, or no packages: the JavaScript sample is not tested"; }

clean: ## remove what make built and installed
	rm -rf bin dist .tools .venv examples/javascript/node_modules

need-go:
	@command -v go >/dev/null || { echo "Isobar needs Go $$(awk '$$1 == "go" { print $$2 }' go.mod) or later: https://go.dev/dl"; exit 1; }

# The race detector is linked by a C compiler; nothing else here needs one.
need-cc: need-go
	@cc=$$(go env CC); command -v "$${cc%% *}" >/dev/null || \
		{ echo "The race detector needs a C compiler ($$cc is not found): apt-get install gcc libc6-dev, or set CC=."; exit 1; }

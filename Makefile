# Everything here needs Go, make and a C compiler (for the race detector), and installs nothing.
# `make test` skips what the machine lacks and says so; .ci/run installs it and forbids skipping.

GO ?= go
TOOL = $(GO) tool -modfile=$(CURDIR)/tools/go.mod
# Kubernetes is never compiled with -race: that alone would take longer than all tests.
NORACE = ./internal/kube/... ./internal/kubetest/... ./cmd/... ./test/...
RACE = $(shell $(GO) list ./... | grep -v -E '/(internal/kube|internal/kubetest|cmd|test)(/|$$)')

.PHONY: help up quick test lint bench bench-wasm bench-scale generate verify image soak build

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

up: ## A hub, three sites and an app on this machine
	$(GO) run ./cmd/skerry up

build: ## Both programs, stripped, into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags='-s -w' -o bin/ ./cmd/skerry ./cmd/skerry-site

quick: ## Unit tests without the race detector
	$(GO) test -short ./internal/... ./cmd/... ./test/arch/...
	cd api && GOWORK=off $(GO) test ./...

test: ## All tests
	# What others link stands alone, outside this tree.
	cd sdk/go && GOWORK=off GOOS=wasip1 GOARCH=wasm $(GO) vet ./...
	@for module in api sdk/go; do \
		alone=$$(mktemp -d) && cp -r $$module/. $$alone && cd $$alone && \
		GOWORK=off $(GO) vet ./... && GOWORK=off $(GO) test ./... ; code=$$?; \
		cd $(CURDIR) && rm -rf $$alone && [ $$code = 0 ] || exit 1; \
	done
	# These run programs that the cache of test results does not know of.
	$(GO) test -count=1 -timeout=30m $(NORACE)
	$(GO) test -race -timeout=30m $(RACE)
	# All interleavings of the protocol between hub and sites, which the race detector would make ten times slower.
	$(GO) test -count=1 -run '^TestExplore$$' ./internal/site
	# Tools are a module of their own.
	cd tools && GOWORK=off $(GO) test ./...

lint: ## gofmt, vet, staticcheck
	@out=$$(git ls-files '*.go' | xargs gofmt -l); test -z "$$out" || { echo "not gofmt'ed:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(TOOL) staticcheck ./...

bench: ## The figures of docs/benchmarks
	$(GO) run ./test/bench

bench-wasm: ## The figures of docs/benchmarks/wasm.md; needs clang and wasi-libc
	$(GO) run ./test/bench/wasm

bench-scale: ## The figures of docs/benchmarks/scale.md: many sites and one hub (SITES=n); takes minutes and 10 GB of memory
	$(GO) run ./test/scale -sites $(or $(SITES),15000)

generate: ## CRDs, deep copies, references, import lists
	cd api && $(GO) tool -modfile=../tools/go.mod controller-gen object paths=./...
	cd api && $(GO) tool -modfile=../tools/go.mod controller-gen crd paths=./... output:crd:artifacts:config=../config/crd
	$(GO) run ./cmd/skerry generate-docs docs
	$(GO) test ./test/arch -run TestImportLists -update

GENERATED = api/v1alpha1/zz_generated.deepcopy.go config/crd docs/cli docs/reference cmd/skerry/imports.txt cmd/skerry-site/imports.txt

verify: ## Generated files are as their sources say
	@before=$$(mktemp -d) && cp -r --parents $(GENERATED) $$before && $(MAKE) generate && \
	for path in $(GENERATED); do diff -r $$before/$$path $$path || stale=1; done; rm -rf $$before; \
	test -z "$$stale" || { echo "run make generate and commit"; exit 1; }

image: ## The hub's container image, as an OCI layout in image/ (VERSION=1.0.0)
	$(GO) run ./deploy/image --version $(or $(VERSION),devel) --output image

soak: ## Faults by seeded schedules while releases go out (SEEDS=n), into docs/benchmarks/faults.md; needs root
	$(GO) run ./test/fault/soak -seeds $(or $(SEEDS),10)

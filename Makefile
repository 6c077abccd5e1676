# FlowForge. `make help` lists the targets; README.md says which two matter first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE ?= $(or $(FLOWFORGE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/flowforge)
export FLOWFORGE_CACHE := $(CACHE)
export CARGO_TARGET_DIR ?= $(CACHE)/target
export CARGO_TERM_COLOR ?= auto
# CI says --locked.
CARGO_FLAGS ?=
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := $(CACHE)/tools/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
CORES := flowforge-topology-core flowforge-scheduler-cel flowforge-scheduler-core flowforge-dag-controller-core
# What would bring a clock, a network, a runtime or randomness into a core.
IMPURE := axum fastrand getrandom hyper jiff k8s-openapi kube kube-client kube-core kube-runtime mio rand rand_core reqwest tokio
TESTBED := $(CARGO_TARGET_DIR)/debug/flowforge-testbed
GO_MODULES := $(sort $(patsubst %/go.mod,%,$(wildcard tests/testbed/*/go.mod tests/testbed/go.mod)))

## -- the two that matter --------------------------------------------------------------------------------------------
.PHONY: demo
demo: binaries testbed ## Run the diamond of gangs on a real local control plane (KEEP=1 leaves it up)
	$(CARGO_TARGET_DIR)/debug/flowforge-demo $(if $(KEEP),--keep)

.PHONY: test
test: binaries testbed ## Unit, property and control-plane tests
	hack/test

.PHONY: oracle
CASES ?= 2000
oracle: ## Compare verdicts and scores with kube-scheduler's own plugins: SEED=n CASES=n
	cargo run --quiet -p flowforge-oracle -- --cases $(CASES) $(if $(SEED),--seed $(SEED))

.PHONY: soak
soak: binaries testbed ## 100,000 oracle cases and 30 minutes of churn; resumable, prints the commit (SOAK_CASES=, SOAK_SECONDS=)
	hack/soak

.PHONY: bench
BENCH_FULL := --nodes 5000 --pods 5000 --paced 2000 --paced-gangs 500 --standing 50000
BENCH ?= $(if $(FULL),$(BENCH_FULL),--nodes 1000 --pods 800 --paced 500 --paced-gangs 100 --standing 5000)
bench: ## Cost, throughput, latency, memory and start beside kube-scheduler's, release builds: short, or FULL=1 (BENCH=--help)
	cargo build $(CARGO_FLAGS) -p flowforge-testbed
	$(TESTBED) build --fake-only
	cargo build $(CARGO_FLAGS) --release -p flowforge-scheduler -p flowforge-benchmarks --bins
	$(CARGO_TARGET_DIR)/release/flowforge-bench $(BENCH)

## -- build ----------------------------------------------------------------------------------------------------------
.PHONY: binaries
binaries: deps ## Every binary, development profile (what tests and the demo run)
	cargo build $(CARGO_FLAGS) --workspace --bins

.PHONY: build
build: deps ## The shipped binaries, release profile
	cargo build $(CARGO_FLAGS) --release -p flowforge-scheduler -p flowforge-dag-controller -p flowforge-cli
	@echo "in $(CARGO_TARGET_DIR)/release: flowforge-scheduler flowforge-dag-controller flowforge"

.PHONY: deps
deps: ## What real nodes need and the system lacks (Debian, as root; fake nodes need none of it)
	@tests/testbed/node/install-deps.sh || { \
		case ",$${FLOWFORGE_REQUIRE:-}," in *,real,*) echo "FLOWFORGE_REQUIRE: real nodes are wanted here" >&2; exit 1;; esac; \
		echo "going on with fake nodes only"; }

.PHONY: testbed
testbed: binaries ## Build etcd, Kubernetes, kwok and containerd for the testbed (cached by module hash)
	$(TESTBED) build

## -- a cluster to play with -----------------------------------------------------------------------------------------
PROFILE ?= dgx-h100
FAKE ?= 28
REAL ?= 0
.PHONY: cluster
cluster: testbed ## Leave a cluster running: PROFILE=dgx-h100|gb200-nvl72|l40s-pcie|cpu FAKE=n REAL=n
	$(TESTBED) up --profile $(PROFILE) --fake $(FAKE) --real $(REAL)

.PHONY: cluster-down
cluster-down: ## End it, and what `make demo KEEP=1` left
	$(TESTBED) down

.PHONY: smoke-1.33
smoke-1.33: binaries ## Pods, a gang and a workflow on Kubernetes 1.33, the oldest supported (about 10 minutes of Go, once)
	$(TESTBED) build --k8s 1.33
	$(CARGO_TARGET_DIR)/debug/flowforge-smoke

## -- quality --------------------------------------------------------------------------------------------------------
.PHONY: verify
verify: pure $(CARGO_DENY) ## Read-only: format, lints, pure cores, generated files fresh, licences
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	@for m in $(GO_MODULES); do ( cd $$m; bad=$$(gofmt -l .); [ -z "$$bad" ] || { echo "gofmt: $$m: $$bad"; exit 1; } ); done
	$(MAKE) --no-print-directory manifests-fresh
	$(CARGO_DENY) --all-features --log-level error check bans licenses sources

.PHONY: pure
pure: ## Read-only: the pure cores link nothing with a clock, a network, a runtime or randomness
	@for core in $(CORES); do \
		tree=$$(cargo tree $(CARGO_FLAGS) -p $$core -e normal,build --prefix none --format '{p}'); \
		for crate in $(IMPURE); do \
			! grep -q "^$$crate v" <<<"$$tree" || { echo "$$core must not depend on $$crate: cargo tree -p $$core -e normal,build -i $$crate"; exit 1; }; \
		done; \
	done

.PHONY: advisories
advisories: $(CARGO_DENY) ## Known vulnerabilities of what is linked (fetches the RustSec database)
	$(CARGO_DENY) --all-features --log-level error check advisories

.PHONY: fix
fix: ## Write what verify asks for
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all
	@for m in $(GO_MODULES); do gofmt -w $$m; done
	$(MAKE) --no-print-directory manifests

# The version is part of the path, so that another one is another file.
$(CARGO_DENY):
	CARGO_TARGET_DIR=$(CACHE)/target-tools cargo install --locked cargo-deny@$(CARGO_DENY_VERSION) --root $(CACHE)/tools/cargo-deny-$(CARGO_DENY_VERSION)

-include manifests/manifests.mk

.PHONY: help
help: ## This list
	@grep -hE '^[a-zA-Z0-9_.-]+:.*?## ' $(MAKEFILE_LIST) | sort -u | awk -F':.*?## ' '{printf "  %-18s %s\n", $$1, $$2}'

# Adit's commands. `make run` shows the pool at work; `make test` proves it.
#
# What is slow to build lives in the cache, outside the checkout: the target directory (with Bitcoin Core's validation
# library), the compiler cache, Bitcoin Core's node, and the peers' programs that the tests run against.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export ADIT_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/adit
export CARGO_TARGET_DIR ?= $(ADIT_CACHE)/target
# Bitcoin Core's sources are compiled once, whatever the profile that asks for them. Set also where ccache is yet to be
# installed: a build whose variables change with the second command compiles everything twice.
export CMAKE_C_COMPILER_LAUNCHER ?= ccache
export CMAKE_CXX_COMPILER_LAUNCHER ?= ccache
export CCACHE_DIR ?= $(ADIT_CACHE)/ccache
# Debug information would tie an object to its build folder: paths are kept relative to it.
export CCACHE_BASEDIR ?= $(CARGO_TARGET_DIR)
export CCACHE_NOHASHDIR ?= true

.PHONY: help run build test lint doc fixtures prerequisites fuzz bench instructions measured peers scale flamegraph clean-cache

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

run: prerequisites ## build, then a pool with its own node and two miners: shares and blocks in the terminal
	cargo run --release --locked -p adit-roles --bin adit -- demo $(ARGS)

build: prerequisites ## the release programs, adit and adit-loadgen
	cargo build --release --locked -p adit-roles -p adit-loadgen
	@echo "built $(CARGO_TARGET_DIR)/release/adit and $(CARGO_TARGET_DIR)/release/adit-loadgen"

test: prerequisites fixtures ## every test, against the real node and the peers' own programs
	cargo build --locked -p adit-roles -p adit-loadgen --bins
	cargo test --locked --workspace --all-targets
	cargo test --locked --workspace --doc

lint: prerequisites ## formatting, and clippy with warnings as errors
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo check --locked -p adit-proto -p adit-codec -p adit-hasher --no-default-features

doc: prerequisites ## the documentation of every package, warnings as errors
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

fixtures: prerequisites ## Bitcoin Core's node and the peers' programs that the tests need (once; FIXTURES=core for the node alone)
	scripts/fixtures.sh $(FIXTURES)

prerequisites: ## the system packages that the build needs; installed where that is allowed
	@scripts/prerequisites.sh

bench: prerequisites ## every criterion bench; BENCH=name for one of them
	cargo bench --locked -p adit-bench $(if $(BENCH),--bench $(BENCH))

instructions: prerequisites ## counts the hot paths' instructions, compared with bench/record/instructions.toml; RENEW=1 writes it anew
	@scripts/prerequisites.sh valgrind
	cargo build --release --locked -p adit-bench --bin adit-instructions
	$(CARGO_TARGET_DIR)/release/adit-instructions $(if $(RENEW),renew,check) bench/record/instructions.toml

# What is measured is built as it is released.
measured: prerequisites
	cargo build --release --locked -p adit-roles -p adit-loadgen -p adit-perf

peers: measured ## Adit and the reference implementation's pool in turn under the same loads: perf/README.md; ARGS="--loads a,c"
	scripts/fixtures.sh peers
	$(CARGO_TARGET_DIR)/release/adit-perf peers $(ARGS)

scale: measured ## Adit alone at its limits: millions of devices, a hundred thousand connections; ARGS="--loads k"
	$(CARGO_TARGET_DIR)/release/adit-perf scale $(ARGS)

flamegraph: measured ## a profile of the pool under a load, LOAD=a: perf/profile/a.svg, with a table beside it
	$(CARGO_TARGET_DIR)/release/adit-perf flamegraph --load $(or $(LOAD),a) $(ARGS)

fuzz: ## a long fuzz run with a nightly compiler: TARGET=frame, SECONDS=600
	cd tests/fuzz && cargo +nightly fuzz run $(or $(TARGET),frame) -- -max_total_time=$(or $(SECONDS),600)

clean-cache: ## removes everything that was built or fetched into the cache
	rm -rf "$(ADIT_CACHE)"

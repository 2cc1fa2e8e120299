# `make` alone lists what can be done here.
#
# Demo, tests and checks share one build outside the clone, so that RocksDB and librdkafka compile once,
# whatever is cloned or cleaned.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/tillflow/target
export PATH := $(HOME)/.cargo/bin:$(PATH)

# Passed on to the program that a target runs: make demo ARGS="--for 20s --headless"
ARGS ?=
# How many seeds `make simulate` tries, or which one; and how many blows `make torture` strikes.
SEEDS ?= 1000
SEED ?=
ROUNDS ?= 100

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test check-k8s bench profile simulate torture fmt lint doc setup clean clean-all
# Recipes share one build directory and the machine's cores.
.NOTPARALLEL:

help: ## this list
	@awk -f scripts/help.awk $(MAKEFILE_LIST)

##@ Try it

demo: ## a simulated shop on the embedded log, console at http://127.0.0.1:8080/ (ARGS="--for 20s --headless")
	@scripts/setup demo
	@scripts/tillflow demo $(ARGS)

##@ Prove it

test: ## set up what is missing, then every test: unit, property, simulation, Kafka, Redis, SMTP, browser, k8s
	@scripts/setup test
	@scripts/test $(ARGS)

simulate: ## more seeds through the simulation (SEEDS=1000), or one of them (SEED=17)
	@scripts/setup demo
	@SEEDS=$(SEEDS) SEED=$(SEED) scripts/test --simulate $(ARGS)

torture: ## processes killed, frozen, wiped, the broker restarted and lost, answers lost (ROUNDS=100 SEED=1)
	@scripts/setup test
	@ROUNDS=$(ROUNDS) SEED=$(or $(SEED),1) scripts/test --torture $(ARGS)

bench: ## the side-by-side benchmarks: a table, and a JSON file
	@scripts/setup bench
	@scripts/bench $(ARGS)

profile: ## where the processor time of a benchmark goes, by perf (ARGS="--contenders bounded")
	@scripts/setup bench
	@scripts/profile $(ARGS)

##@ Change it

fmt: ## format the code
	@cargo fmt --all

lint: ## formatting and clippy, warnings as errors
	@scripts/setup demo
	@scripts/lint

doc: ## the API documentation of all crates
	@scripts/setup demo
	@. scripts/env && cargo doc --locked --workspace --no-deps

check-k8s: ## render the manifests in k8s/ and check them against the Kubernetes schemas
	@scripts/setup k8s
	@scripts/check-k8s

##@ Keep house

setup: ## install what building and testing need, and nothing that is there
	@scripts/setup test

clean: ## remove what was built of this project's own crates; RocksDB and librdkafka stay built
	@cargo clean --workspace
	@cargo clean --workspace --release
	@rm -rf tillflow-data

clean-all: ## remove the whole build and test cache, Kafka included
	@rm -rf "$(HOME)/.cache/tillflow" tillflow-data

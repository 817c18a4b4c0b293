# callvault: what a person types. Each target says what it installs before it does.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := build

.PHONY: build run test lint unit bench torture clean rust

# The toolchain is taken as given; without it nothing else makes sense.
rust:
	@$(if $(shell command -v cargo),,$(error callvault needs Rust 1.95 or newer: install it with rustup (https://rustup.rs), then run make again))

# Programs, with what they need from Debian.
build: rust
	@packaging/prerequisites build
	cargo build --release --locked

# The appliance in the foreground, on loopback, with a self-test call; its data stays in target/run. A shell that starts this
# in the background has it ignore SIGINT, which must still stop it.
run: build
	@env --default-signal=INT packaging/run-here

# Everything that is checked, in the order in which it fails fastest. The last line is the sum.
test: rust
	@packaging/prerequisites build test
	@tests/run-all

lint: rust
	@packaging/prerequisites build test
	@tests/run-all lint

# What takes too long for every day: many more of the worlds that the simulation makes.
torture: rust
	SEEDS=10000 cargo test --release --locked -p callvault-simulation -- --nocapture

# Component benchmarks, each beside its floor measured in the same run.
bench: build
	cargo bench --locked

clean:
	cargo clean

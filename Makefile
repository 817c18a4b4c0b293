# callvault: what a person types. Each target says what it installs before it does.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := build

.PHONY: build run test torture lint unit bench fuzz packages clean rust

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

# A deb and an rpm in target/packages, with manual pages and completions; VERSION= says another version.
packages: rust
	@packaging/prerequisites build packages
	@packaging/build

# Everything that is checked, in the order in which it fails fastest. The last line is the sum.
test: rust
	@packaging/prerequisites build test
	@tests/run-all

# What takes long: many more of the worlds that the simulation makes; the recorder and the daemon killed again and again under many calls, the
# daemon also under a booted systemd; an hour of 200 calls, of which no packet may be missing; shares that fail, a clock that is set and power that is cut, in machines of their own. It needs root.
torture: rust
	@packaging/prerequisites build test
	SEEDS=$${SEEDS:-10000} cargo test --release --locked -p callvault-simulation -- --nocapture
	KILLS=$${KILLS:-100} CALLS=$${CALLS:-100} cargo test --release --locked --test resume -- --nocapture
	KILLS=$${KILLS:-20} CALLS=$${CALLS:-100} cargo test --release --locked --test restart every_call -- --nocapture
	KILLS=$${KILLS:-20} CALLS=$${CALLS:-100} cargo test --release --locked --test systemd -- --nocapture
	CALLVAULT_LOAD_CALLS=$${SOAK_CALLS:-200} CALLVAULT_LOAD_SECONDS=$${SOAK_SECONDS:-3600} CALLVAULT_LOAD_SETTINGS='archive.codec = "as-received"' cargo bench --locked --bench load
	packaging/prerequisites mail
	cargo test --release --locked --test mail_servers -- --nocapture
	packaging/prerequisites browser
	cargo test --release --locked --test portal -- --nocapture
	packaging/prerequisites packages
	cargo build --release --locked -p callvault -p callvault-manual
	cargo test --release --locked --test packages -- --nocapture
	packaging/prerequisites http
	tests/torture/schemathesis
	tests/torture/alerts
	tests/torture/apparmor
	tests/torture/shares
	tests/torture/clock
	tests/torture/powercut $${CUTS:-30}

lint: rust
	@packaging/prerequisites build test
	@tests/run-all lint

# Component benchmarks, each beside its floor measured in the same run.
bench: build
	cargo bench --locked

# Ten million inputs for each reader of foreign bytes; RUNS=, PARALLEL=, TARGETS= say otherwise.
fuzz: rust
	@packaging/prerequisites build
	@tests/fuzz/run $(TARGETS)

clean:
	cargo clean

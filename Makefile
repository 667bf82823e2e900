# Everything a contributor runs. CI (.ci/run) runs the same targets.
.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint golden golden-check gen gen-check fuzz bench clean

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 30s
RUNS        ?= 200
# The half of the project that people run on any system to write and review policies.
PORTABLE    := ./schema/... ./compiler/... ./ir/... ./cmd/sandlock-compile

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what building and testing need, if it is missing
	@scripts/setup.sh

build: ## Build ./sandlock-compile, ./sandlock-exec and its helper ./sandlock-proxy as they are shipped
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o . ./cmd/sandlock-compile ./cmd/sandlock-exec ./cmd/sandlock-proxy
	@chmod go-w sandlock-proxy # whoever could write it would be the supervisor's helper

demo: setup build ## Run Python under policies/python.cue, and show three things that it may not do
	@scripts/demo.sh

test: setup ## Run all tests (as root they run as an ordinary user as well)
	go test ./...

lint: ## Check format, vet for each platform, and run staticcheck
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not formatted: $$unformatted"; exit 1; fi
	go vet ./...
	GOOS=darwin go vet $(PORTABLE)
	GOARCH=arm64 go vet ./...
	GOBIN=$(CURDIR)/bin go install $(STATICCHECK)
	bin/staticcheck ./...

golden: build ## Write golden/ anew from policies/; explain the difference in your commit
	./sandlock-compile golden

golden-check: build ## Check that golden/ says what policies/ compile to
	./sandlock-compile golden --check

gen: ## Run all generators
	go generate ./...

gen-check: ## Check that the generators change nothing
	@before=$$(scripts/tree.sh); go generate ./... && after=$$(scripts/tree.sh); \
	if [ "$$before" != "$$after" ]; then echo "go generate changed the tree:"; git status --short; exit 1; fi

fuzz: ## Fuzz every target for FUZZTIME (default 30s)
	@set -e; for pkg in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

bench: ## Compare start-up and system calls with the peers (RUNS rounds, default 200)
	bench/peers.sh
	go run ./bench -runs $(RUNS)

clean: ## Remove what was built
	rm -rf sandlock-compile sandlock-exec sandlock-proxy bin bench/out

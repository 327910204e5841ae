# Tidemark's chores. `make` lists them.

.DEFAULT_GOAL := help
SHELL := /bin/sh
GO ?= go
# Packages that test at once. Real services share the machine, so no more than its cores.
P ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ $$n -gt 4 ] && n=4; echo $$n)
FUZZTIME ?= 10s
PKG ?= ./...
TOOLS := bin/tools
NOTICE := @printf '%s\n'

.PHONY: help build demo test prepare race fuzz leaks regress large bench lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/tidemark
	$(GO) build -o bin/tidemark ./cmd/tidemark

demo: build ## two shards, Kafka, Elasticsearch, Redis, the proxy and a shop to try, until Ctrl-C
	@bin/tidemark demo $(ARGS)

test: prepare ## every test, on real services
	@GO='$(GO)' P=$(P) scripts/test $(PKG)

prepare: ## fetch the services that tests and demo start
	$(NOTICE) 'prepare: building the fetcher'
	$(GO) run ./internal/localstack/cmd/fetch

race: prepare ## every test under the race detector
	@GO='$(GO)' P=$(P) FLAGS=-race TIMEOUT=30m scripts/test $(PKG)

fuzz: ## each fuzz target for FUZZTIME (10s)
	GO=$(GO) FUZZTIME=$(FUZZTIME) scripts/fuzz

leaks: prepare ## many clients over few connections beside private PostgreSQLs, for FOR (1h) each, from SEED (a new one); OF one of alone, shards, replica
	TIDEMARK_LEAK_FOR=$(or $(FOR),1h) TIDEMARK_SEED=$(or $(SEED),$(shell date +%s)) $(GO) test ./proxy -run '^TestLeaks$$/$(OF)' -v -timeout 0

large: prepare ## values of nearly 1 GB, in every message that can have one; takes some 6 GB and minutes
	TIDEMARK_LARGE_MB=$(or $(MB),950) $(GO) test ./proxy -run '^TestLargeValues$$' -v -timeout 0

regress: prepare ## PostgreSQL's own regression tests directly and through Tidemark, from SRC, its source tree; TESTS for some of them
	@GO='$(GO)' SRC='$(SRC)' TESTS='$(TESTS)' scripts/regress

bench: prepare ## direct PostgreSQL, PgBouncer and Tidemark side by side
	$(GO) run ./bench $(ARGS)

lint: $(TOOLS)/.built ## gofumpt, vet, errcheck, errorlint, ineffassign, unconvert, staticcheck and unused
	GO=$(GO) TOOLS=$(TOOLS) scripts/lint $(PKG)

# One build for all linters; versions are those of .ci/tools/go.mod.
$(TOOLS)/.built: .ci/tools/go.mod .ci/tools/go.sum .ci/tools/lint/main.go
	$(NOTICE) 'lint: building the linters (about a minute, once)'
	$(GO) build -C .ci/tools -o $(CURDIR)/$(TOOLS)/ ./lint honnef.co/go/tools/cmd/staticcheck github.com/mdempsky/unconvert mvdan.cc/gofumpt
	@touch $@

clean: ## remove what was built here; downloads stay in the user's cache folder
	rm -rf bin
	$(GO) clean -testcache

# tougw: everything that is done by hand or by a machine is a target here.
# `make` alone lists them. On a fresh Debian machine with Go each target
# installs what it needs first; those that build networks need root.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS   += --no-print-directory
.DEFAULT_GOAL := help

GO          ?= go
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# Where Debian keeps nginx, nft and sshd, and where Go's own archive puts go:
# not everybody's PATH has them.
export PATH := $(PATH):/usr/sbin:/sbin:/usr/local/go/bin

# Tests that need namespaces fail where they would otherwise be skipped.
export TESTNET_REQUIRED := 1

# How long each fuzz target runs (make fuzz), and which of them.
FUZZTIME    ?= 20s
FUZZ        ?= .
# Tests by name: make test RUN=TestHalfClose
RUN         ?=
# FULL=1: every row of make bench. KEEP=1: leave make demo running.
FULL        ?=
KEEP        ?=

BUILDFLAGS  := -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
# The packages of the product: all but the end-to-end programs.
PACKAGES     = $$($(GO) list ./... | grep -v '/test\(/\|$$\)')
run          = $(if $(RUN),-run '$(RUN)')

##@ Use

.PHONY: build
build: ## build bin/tougw, one static binary
	CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o bin/tougw ./cmd/tougw

.PHONY: demo
demo: need-net build ## show the whole path: five namespaces, two gateways, real traffic (root, a minute; KEEP=1 leaves it running)
	@$(GO) build -o bin/demo ./test/demo
	@exec bin/demo -tougw bin/tougw $(if $(KEEP),-keep)

.PHONY: bench
bench: need-net build ## throughput and latency beside plain routing and wireguard-go (root, under 20 minutes; FULL=1 for every row)
	@$(GO) build -o bin/bench ./test/bench
	@exec bin/bench -tougw bin/tougw $(if $(FULL),-full)

.PHONY: pgo
pgo: need-net build ## renew the profile that guides the compiler, cmd/tougw/default.pgo, after changes of the data path (root, 2 minutes)
	@$(GO) build -o bin/bench ./test/bench
	@rm -rf bench-results/pgo && mkdir -p bench-results/pgo
	@bin/bench -tougw bin/tougw -out bench-results/pgo -only tougw -rows throughput,latency,connections -rounds 2 -profile bench-results/pgo
	@$(GO) tool pprof -proto bench-results/pgo/*.pprof > bench-results/pgo/merged
	@mv bench-results/pgo/merged cmd/tougw/default.pgo

.PHONY: bench-homa
bench-homa: need-net ## Homa in user space beside kernel TCP, and short RPCs on a saturated link (root, 5 minutes)
	@mkdir -p bench-results
	@$(GO) build -o bin/bench-homa ./test/benchhoma
	@exec bin/bench-homa -json bench-results/homa.json | tee bench-results/homa.txt

.PHONY: bench-translate
bench-translate: need-net need-translate build ## Redis and HTTP directly, through HAProxy and through the translator (root, 10 minutes)
	@mkdir -p bench-results
	@$(GO) build -o bin/bench-translate ./test/benchtranslate
	@exec bin/bench-translate -tougw bin/tougw -json bench-results/translate.json | tee bench-results/translate.txt

.PHONY: sim
sim: ## Homa in a simulated data centre, into bench-results/sim: 12 hosts in seconds; FULL=1 for 144 hosts, as docs/homa.md (10 minutes of processor time)
	@mkdir -p bench-results/sim
	@$(GO) build -o bin/homasim ./homa/sim/cmd/homasim
	@exec bin/homasim -out bench-results/sim $(if $(FULL),,-racks 3 -hosts 4 -scale 0.1)

##@ Check

.PHONY: test
test: unit e2e-short ## unit tests and the short end-to-end tests (root, under 15 minutes)

.PHONY: unit
unit: need-race need-net need-peers ## unit tests of every package, with the race detector (root)
	$(GO) test -race -shuffle=on -timeout 8m $(run) $(PACKAGES)

.PHONY: e2e-short
e2e-short: need-net need-translate build ## the short end-to-end tests (root)
	TOUGW=$(CURDIR)/bin/tougw $(GO) test -p 1 -count=1 -timeout 12m -parallel 8 $(run) ./test/...

.PHONY: e2e
e2e: need-net need-translate build ## the long end-to-end tests too: 10 minutes of half-close, 10,000 downloads (root)
	TOUGW=$(CURDIR)/bin/tougw TOUGW_LONG=1 $(GO) test -count=1 -timeout 90m -parallel 8 -v $(run) ./test/e2e

.PHONY: race
race: need-race need-net need-peers need-translate ## unit tests three times over, and the short end-to-end tests against a daemon built with the race detector (root)
	$(GO) test -race -shuffle=on -count=3 -timeout 30m $(run) $(PACKAGES)
	$(GO) build -race -o bin/tougw-race ./cmd/tougw
	TOUGW=$(CURDIR)/bin/tougw-race $(GO) test -race -count=1 -timeout 30m -parallel 4 $(run) ./test/e2e

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (20s); FUZZ=regexp chooses
	@for package in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' | grep -E '$(FUZZ)' || true); do \
	    echo "== $$package $$target"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
	  done; \
	done

.PHONY: lint
lint: ## gofmt, go vet, staticcheck, go.mod tidy and verified
	@files=$$($$($(GO) env GOROOT)/bin/gofmt -l .); \
	  if [ -n "$$files" ]; then echo "not formatted by gofmt:"; echo "$$files"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	$(GO) mod tidy -diff
	$(GO) mod verify

##@ Rest

.PHONY: clean
clean: ## remove what the other targets built
	rm -rf bin bench-results e2e-results

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

# What a target needs beyond Go, and Debian's package for it where a program is missing.
.PHONY: need-net need-race need-peers need-translate
need-net:
	@test/need ip=iproute2 nft=nftables tcpdump curl nginx=nginx-light iperf3 \
	  ssh=openssh-client scp=openssh-client sshd=openssh-server \
	  ps=procps ethtool ping=iputils-ping
# Real programs behind translators.
need-translate:
	@test/need redis-server redis-cli=redis-tools redis-benchmark=redis-tools haproxy wrk memcached \
	  memccp=libmemcached-tools memccat=libmemcached-tools dnsmasq=dnsmasq-base dig=bind9-dnsutils tc=iproute2 \
	  psql=postgresql pg_createcluster=postgresql
# Other implementations of DTLS that the unit tests talk to.
need-peers:
	@test/need openssl gnutls-serv=gnutls-bin
need-race:
	@test/need gcc /usr/include/stdlib.h=libc6-dev

# SPDX-License-Identifier: Apache-2.0
#
#   make build   bin/sdtrace, with Go alone
#   make demo    a live capture with real senders, on this machine
#   make test    everything: unit, native, command line, virtual machines
#   make check   the fast loop
#   make prove   what takes hours: repetitions on a busy machine, floods, long fuzzing
#   make bench   what a capture costs on this machine; bench-vm: in instructions
#
# All of them but build install what they need and is missing. Debian 12, Go, root.

CACHE  ?= $(or $(SDTRACE_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sdtrace)
TOOLS  := $(CACHE)/bin
GOLANGCI_LINT_VERSION := v2.15.0
GOLANGCI_LINT := $(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION)

BPF_C := $(wildcard bpf/*.bpf.c bpf/*/*.bpf.c)
BPF_H := $(wildcard bpf/*.h)

# What make check runs in a VM.
CHECK_KERNEL := 6.12-amd64
CHECK_TESTS := TestEveryWayToSend|TestFailedSends|TestDropped|TestPassedFDs|TestClaimed
# A number of inputs, not a time: Go ends a fuzz test now and then with "context
# deadline exceeded" when its time is up. They begin with those kept in testdata/fuzz.
FUZZTIME ?= 1000x

export CGO_ENABLED ?= 0

.PHONY: all
all: build

# What sdtrace --version says it was built of.
COMMIT = $(shell git describe --always --abbrev=12 --exclude '*' --dirty 2>/dev/null)

.PHONY: build
build:
	go build -trimpath -buildvcs=false -ldflags '-X main.commit=$(COMMIT)' -o bin/sdtrace ./cmd/sdtrace

# What generating and linting takes, what the demo shows, and all that tests take.
.PHONY: packages-generate packages-demo packages
packages-generate:
	@.ci/install-packages generate
packages-demo:
	@.ci/install-packages demo
packages:
	@.ci/install-packages generate demo test

## Generated code

.PHONY: generate
generate: packages-generate
	go generate ./bpf

# The committed objects must be what clang makes of the committed C.
.PHONY: check-generated
check-generated: packages-generate
	@aside=$$(mktemp -d) && trap 'rm -rf '$$aside EXIT && bpf/generate.sh $$aside && \
	for made in $$(cd $$aside && find . -type f); do cmp $$aside/$$made bpf/$$made || stale=1; done; \
	if [ "$$stale" ]; then echo "generated files in bpf/ are out of date: run make generate" >&2; exit 1; fi

.PHONY: format
format: packages-generate $(GOLANGCI_LINT)
	clang-format-14 -i $(BPF_C) $(BPF_H)
	$(GOLANGCI_LINT) fmt

.PHONY: lint
lint: packages-generate $(GOLANGCI_LINT)
	clang-format-14 --dry-run --Werror $(BPF_C) $(BPF_H)
	@for header in $(BPF_H); do \
		clang-14 -target bpf -D__TARGET_ARCH_x86 -Wall -Werror -Wno-unused-function -fsyntax-only -x c -Ibpf $$header || \
		{ echo "$$header does not compile by itself: it has to include what it uses" >&2; exit 1; }; done
	go mod tidy -diff
	$(GOLANGCI_LINT) fmt --diff
	$(GOLANGCI_LINT) run

$(GOLANGCI_LINT):
	@echo "building golangci-lint $(GOLANGCI_LINT_VERSION), once: two minutes"
	@mkdir -p $(TOOLS)/tmp
	GOBIN=$(TOOLS)/tmp go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv $(TOOLS)/tmp/golangci-lint $@

## Tests

# go vet and the unit and integration tests on this machine's kernel, with real
# systemds and container runtimes. Tests of the capture count what is sent on the
# whole machine, and the relay's flood it, so both run by themselves. The boot is a
# machine's (vmtest/run -tier boot).
ALONE := ./internal/tracer ./pkg/relay
OTHERS = $$(go list ./... | grep -v -e '/internal/tracer$$' -e '/pkg/relay$$' -e '/vmtest/boot$$')
.PHONY: test-native
test-native: packages build
	bin/sdtrace --version | grep -q '^sdtrace [0-9.]* (commit $(or $(COMMIT),unknown))$$'
	go test -p 2 -timeout 40m $(OTHERS)
	go test -p 1 -timeout 40m $(ALONE)

# The same without what takes a minute, and so without the relay's floods.
.PHONY: test-short
test-short: packages build
	go test -short -p 3 $(OTHERS) ./pkg/relay ./vmtest/boot
	go test -short ./internal/tracer

# The detector allocates, too. One that sleeps a second at its end would do so in every helper process.
RACED := ./internal/enrich/names ./internal/history ./internal/wire ./pkg/capture
.PHONY: test-race test-race-all
test-race: packages
	CGO_ENABLED=1 GORACE=atexit_sleep_ms=0 go test -race -short -p 1 -skip NoAllocationPer $(RACED)
test-race-all: RACED += ./pkg/events ./internal/identity ./pkg/relay
test-race-all: test-race

FUZZED := internal/identity internal/render internal/wire pkg/capture pkg/events pkg/relay pkg/verdict
.PHONY: fuzz
fuzz:
	@for package in $(FUZZED); do \
		for target in $$(grep -rhoE '^func Fuzz[A-Za-z0-9]+' $$package/*_test.go | cut -c6-); do \
			go test ./$$package -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x || exit 1; \
		done; \
	done

.PHONY: kernels
kernels: packages
	vmtest/fetch-kernels.sh

.PHONY: test-vm
test-vm: packages
	go run ./vmtest/run -tier boot,2,1,cost

.PHONY: check
check: packages
	go run ./vmtest/run -tier 1 -kernels $(CHECK_KERNEL) -packages ./internal/tracer -run '$(CHECK_TESTS)' \
		-results vmtest/results/check -beside test-short -beside check-generated,lint

# The machines are emulated and want all processors; most of the rest waits, and runs beside
# them. What takes how long: vmtest/results/times.md. The budget is 25 minutes on two processors.
BESIDE := check-generated,lint,test-native,test-race,fuzz
.PHONY: test
test: packages
	go run ./vmtest/run -tier boot,2,1,cost -beside $(BESIDE) -budget 25m

# Ten times natively and three times in each machine, beside busy loops. What is long is run with
# SDTRACE_LONG=1: floods of millions instead of thousands.
.PHONY: prove
prove: packages
	go run ./vmtest/run -tier boot,2,1 -all -times 3 -beside 'test-native*10,test-race-all,floods,random,fuzz-long' -busy -timeout 90m \
		-results vmtest/results/prove -write docs/proof.md

.PHONY: floods random fuzz-long
floods: packages
	SDTRACE_LONG=1 go test -count=1 -p 1 -timeout 60m $(ALONE)
	SDTRACE_LONG=1 go test -count=1 -timeout 30m -run TestNoEnemyStopsACapture ./cmd/sdtrace
# A million messages of two processes of a service, on each version of systemd a quarter; and 200 healthy units.
random: packages
	SDTRACE_LONG=1 go test -count=1 -timeout 2h -run TestRandomMessages -v ./vmtest/verdict
	SDTRACE_LONG=1 go test -count=1 -timeout 20m -run TestOfAHealthyUnit ./vmtest/why
fuzz-long:
	$(MAKE) --no-print-directory fuzz FUZZTIME=100000x

## Demonstration

# What stands in docs/field-guide.md and docs/tutorial.md is what the programs do.
.PHONY: field-guide
field-guide: packages
	go test -timeout 20m -count=1 ./vmtest/boot ./vmtest/field -update

.PHONY: demo
demo: packages-demo build
	go run ./demo -sdtrace bin/sdtrace

## Benchmarks

# strace and bpftrace are what sdtrace is compared with, and nothing else needs them.
.PHONY: bench
bench: packages build
	@which strace bpftrace >/dev/null || { echo "installing: strace bpftrace"; apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends strace bpftrace >/dev/null; }
	go build -o bin/bench ./bench
	bin/bench -sdtrace bin/sdtrace

# In instructions, which are the same on every machine: on the four amd64 kernels.
.PHONY: bench-vm
bench-vm: kernels
	go build -o bin/bench ./bench
	bin/bench -vm

.PHONY: clean
clean:
	rm -rf bin vmtest/results

# A thin front: meson and ninja build, packages.txt says what is needed, scripts/ does the work.
# Two commands on a fresh machine: `make demo` and `make test`.
BUILD ?= build
PREFIX ?= /usr/local
# The build that `make bench` measures some rows beside: before processes of one host had shared memory between them.
BEFORE ?= 70ecec1

.PHONY: all build demo test quick fresh bench attack lint format fuzz soak install clean

all: build

build:
	@scripts/setup build
	@scripts/build $(BUILD)

demo:
	@scripts/setup build demo
	@scripts/build $(BUILD)
	@demo/run $(BUILD)

test:
	@scripts/setup build demo test vm fresh
	@scripts/test $(BUILD)

# The part of the tests that needs neither an RDMA device nor a VM, sanitizers and uroce included: minutes.
quick:
	@scripts/setup build demo test
	@scripts/test --quick $(BUILD)

# On pristine Debian 13 and 12, each in a root of its own: minutes. make fresh SUITE=sid STAGE="demo install"
fresh:
	@scripts/setup fresh
	$(if $(STAGE),,@tests/fresh/selftest)
	@tests/fresh/run $(addprefix --suite ,$(SUITE)) $(addprefix --stage ,$(STAGE))

ifdef AGAINST
bench:
	@scripts/setup build demo test
	@scripts/build $(BUILD)
	@/usr/bin/python3 bench/against.py --wire $(BUILD) "$$(scripts/build-commit $(AGAINST))"
else
bench:
	@scripts/setup build demo test vm bench
	@scripts/build $(BUILD)
	@older=$$(scripts/build-commit $(BEFORE)) || older=; \
	    /usr/bin/python3 bench/aims.py $(BUILD) $${older:+--older "$$older"} && \
	    /usr/bin/python3 bench/plots.py $(BUILD) $${older:+--older "$$older"}
endif

# Attacks that are really done, each against a victim without the defence and one with it: minutes. One alone: ONLY=sweep
attack:
	@scripts/setup build demo test vm
	@scripts/build $(BUILD)
	@SECURDMA_BUILD=$(BUILD) tests/attack/run $(if $(ONLY),--only $(ONLY))
	@tests/rxe-vm/run --no-rxe --timeout 900 --env SECURDMA_BUILD=$(abspath $(BUILD)) \
	    $(CURDIR)/tests/attack/run --rxe --short $(if $(ONLY),--only $(ONLY))

fuzz:
	@scripts/setup build test
	@tests/fuzz/run $(or $(SECONDS),600)
	@BUILD=$(BUILD)/uroce/fuzz uroce/tests/fuzz/run $(or $(SECONDS),600)

# Chaos for hours: make soak SECONDS=7200 SEED=1
soak:
	@scripts/setup build demo test
	@scripts/build $(BUILD)
	@/usr/bin/python3 tests/chaos/chaos.py $(BUILD) --seconds $(or $(SECONDS),3600) $(if $(SEED),--seed $(SEED))

lint:
	@scripts/setup build demo test lint
	@scripts/lint $(BUILD)

format:
	@scripts/setup lint
	@git ls-files '*.c' '*.h' | xargs clang-format -i

install:
	@scripts/setup build
	@scripts/build $(BUILD) $(PREFIX)
	@meson install -C $(BUILD) --no-rebuild $(if $(DESTDIR),--destdir $(DESTDIR))
	@meson install -C $(BUILD)/uroce --no-rebuild $(if $(DESTDIR),--destdir $(DESTDIR))

clean:
	rm -rf build build-* demo.out

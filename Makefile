# Every target sets up what it needs, and is quick when that is there already.
#   make demo               a live migration between two throwaway servers, compared whole
#   make test               everything CI runs
#   make bench              pgmig beside other ways to do the same; BENCH='--scale 0.05' is quick
#   make build              the release binary, target/release/pgmig
#   make install-extension  the extension pgmig_sentinel into the server of PG_CONFIG
#   make lint               format and clippy, warnings are errors

# Targets read each other's output.
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
PG_CONFIG ?= $(shell ls /usr/lib/postgresql/*/bin/pg_config 2>/dev/null | sort -V | tail -1)
EXT_VERSION := 0.1.0
EXT_SQL = $(sort $(notdir $(wildcard sql/schema/*.sql sql/extension/*.sql)))
# Sources are found by name in these folders; the number in the name gives the order.
vpath %.sql sql/schema sql/extension
CARGO ?= cargo
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# Majors that are tested beside that of PG_CONFIG; `OTHERS=` tests it alone.
OTHERS ?= 17 18

.PHONY: demo bench bench-copy bench-cdc bench-verify bench-cutover bench-slowdown test unit it others lint build extension install-extension deps clean soak torture torture-cdc fuzz

demo: build install-extension
	./target/release/pgmig demo $(if $(wildcard ../shared/data/pagila.sql),--database ../shared/data/pagila.sql) $(DEMO)

build: deps
	$(CARGO) build --release -p pgmig

# The bench itself needs no release build, only what it measures does.
bench: bench-copy bench-cdc bench-verify bench-cutover bench-slowdown

bench-copy bench-cdc bench-verify bench-cutover bench-slowdown: bench-%: build install-extension
	$(CARGO) run --quiet -p pgmig-bench -- $* --pgmig target/release/pgmig $(BENCH)

test: lint unit it

unit: deps
	$(CARGO) test -p pgmig -p pgmig-tests --lib
	$(CARGO) test -p pgmig-bench
	PGRX_PG_CONFIG_PATH=$$($(MAKE) -s pg-config) $(CARGO) test -p pgmig_sentinel --lib --target-dir target/ext --no-default-features --features $$($(MAKE) -s pg-feature)

it: install-extension others
	$(CARGO) build -p pgmig
	PGMIG_TEST_PG_BINS=$$($(MAKE) -s other-bins) .ci/it

# Servers of other majors in target/postgres, with the extension. One that cannot be had here is left out.
others: deps $(OTHERS:%=target/postgres/%/extension)

# The mark that server and extension are there. Cargo gives the libraries of all majors one file name, and
# would build each of them again.
target/postgres/%/extension: .ci/postgres $(wildcard pg_ext/src/*.rs pg_ext/* sql/schema/* sql/extension/*) Cargo.lock | deps
	@bin=$$(.ci/postgres $* target/postgres/$*) || { echo "not tested: PostgreSQL $*" >&2; exit 0; }; \
	  $(MAKE) install-extension PG_CONFIG=$$bin/pg_config DESTDIR= SUDO= && touch $@

# Tests that take long, each with a bound of its own. SEEDS says how many random schemas.
soak: install-extension
	$(CARGO) build -p pgmig
	$(CARGO) test -p pgmig-tests --test it -- --ignored --nocapture soak_

# Everything that can die, at named points and at random: KILLS of them, from SEED on, for MINUTES at most.
torture: install-extension
	$(CARGO) build -p pgmig
	PGMIG_KILLS=$(or $(KILLS),200) PGMIG_MINUTES=$(or $(MINUTES),60) $(if $(SEED),PGMIG_TEST_SEED=$(SEED)) \
	  $(CARGO) test -p pgmig-tests --test it -- --ignored --nocapture life::points::torture life::torture::torture life::network::torture

torture-cdc: install-extension
	$(CARGO) build -p pgmig
	PGMIG_SEEDS=$(or $(SEEDS),20) $(CARGO) test -p pgmig-tests --test it -- --ignored --nocapture stream::differential::torture

# ROUNDS of damaged messages through every decoder.
fuzz:
	PGMIG_FUZZ_ROUNDS=$(or $(ROUNDS),2000000) $(CARGO) test --release -p pgmig --lib -- --nocapture stream::fuzz

lint: deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy -p pgmig -p pgmig-tests -p pgmig-bench --all-targets -- -D warnings
	PGRX_PG_CONFIG_PATH=$$($(MAKE) -s pg-config) $(CARGO) clippy -p pgmig_sentinel --all-targets --target-dir target/ext --no-default-features --features $$($(MAKE) -s pg-feature) -- -D warnings

extension: deps
	PGRX_PG_CONFIG_PATH=$$($(MAKE) -s pg-config) $(CARGO) build --release -p pgmig_sentinel --target-dir target/ext --no-default-features --features $$($(MAKE) -s pg-feature)

# Three files: the library, the control file, and the schema's SQL in one script.
# DESTDIR goes before the server's folders, as with PGXS: for packages, and for a server of one's own.
install-extension: extension
	pg_config=$$($(MAKE) -s pg-config) && \
	  share=$(DESTDIR)$$($$pg_config --sharedir)/extension && lib=$(DESTDIR)$$($$pg_config --pkglibdir) && \
	  $(MAKE) -s extension-sql > target/ext/pgmig_sentinel--$(EXT_VERSION).sql && \
	  $(SUDO) install -m 755 -s target/ext/release/libpgmig_sentinel.so $$lib/pgmig_sentinel.so && \
	  $(SUDO) install -m 644 pg_ext/pgmig_sentinel.control target/ext/pgmig_sentinel--$(EXT_VERSION).sql $$share/

# The schema as the extension installs it, on stdout.
.PHONY: extension-sql pg-config pg-feature other-bins
extension-sql: $(EXT_SQL)
	@cat $^

pg-config:
	@test -n "$(PG_CONFIG)" && echo "$(PG_CONFIG)" || ls /usr/lib/postgresql/*/bin/pg_config | sort -V | tail -1

# The folders of their programs, as PGMIG_TEST_PG_BINS has them.
other-bins:
	@for major in $(OTHERS); do \
	  test ! -e target/postgres/$$major/extension || ls -d $(CURDIR)/target/postgres/$$major/root/usr/lib/postgresql/*/bin; \
	done | paste -sd:

pg-feature:
	@$$($(MAKE) -s pg-config) --version | sed -E 's/^PostgreSQL ([0-9]+).*/pg\1/'

# Server, headers, wal2json and clang (which reads the headers), where Debian or Ubuntu lacks them.
deps:
	@bash .ci/deps

clean:
	$(CARGO) clean

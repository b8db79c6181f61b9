# What people do with this tree. Every target sets itself up; what is already set up is not done again.
#
#   make demo    back up a real disk, change it, back it up again, restore it       (runtime dependencies only)
#   make test    all tests but soak, long kill runs, slow ones and benchmarks       (about what CI runs)
#   make setup   .venv with everything for development
#
# PYTHON chooses the interpreter (3.11 or newer), PYTEST_ARGS are passed to pytest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
LOCKS := packaging/requirements
APT := packaging/apt-install.sh

# Hash-checked, and never from a build environment that nothing has locked. Quiet but for errors: pip warns once a package
# of every index in its settings that lacks it.
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --quiet
LOCKED := $(PIP_INSTALL) --require-hashes --no-build-isolation
EDITABLE := $(PIP_INSTALL) --no-deps --no-build-isolation --config-settings editable_mode=compat --editable .

# What guests' disks are made with, for the tests of file-level recovery. The rare ones are not in every distribution.
GUESTS := acl attr btrfs-progs cryptsetup-bin dosfstools exfatprogs f2fs-tools fdisk fuse3 gdisk kmod libhivex-bin lvm2 mdadm mtools ntfs-3g \
	squashfs-tools tar thin-provisioning-tools xfsprogs
RARE := chromium exfat-fuse user-mode-linux wimtools

PYTEST := $(BIN)/python -m pytest
QUICK := not soak and not kill and not bench and not slow and not boot

.PHONY: help
help:
	@sed -n '2,/^$$/s/^# \{0,1\}//p' Makefile
	@echo "targets: setup demo test test-all bench soak oracles azure-smoke boot-test deb lint lock prove-fresh clean"

# --- Setting up. A stamp is newer than the locks it was made from, or its recipe runs again. ---

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is older than Python 3.11; hint: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(APT) python3-venv
	@$(APT) ca-certificates
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# The package's folders are prerequisites because an editable install knows those that existed when it was made.
$(VENV)/.runtime: $(VENV)/.made pyproject.toml $(LOCKS)/build.txt $(LOCKS)/runtime.txt $(wildcard agent/__init__.py mover/__init__.py flr/__init__.py)
	$(LOCKED) -r $(LOCKS)/build.txt -r $(LOCKS)/runtime.txt
	$(EDITABLE)
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime $(LOCKS)/dev.txt
	@headers=$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))'); \
	test -e "$$headers/Python.h" && dev= || dev=python3-dev; \
	$(APT) gcc pkg-config libsystemd-dev e2fsprogs iproute2 libarchive-tools libsecret-1-0 openssl qemu-utils unzip zstd $$dev $(GUESTS)
	@packaging/sshd-install.sh
	@$(APT) $(RARE) || echo "setup: some of '$(RARE)' cannot be had here; the tests that need them are skipped and say so"
	$(LOCKED) -r $(LOCKS)/dev.txt
	@touch $@

# npm comes with the locked Node wheel, and `npm ci` installs exactly what the lock file lists, by its checksums.
# No package's own install script runs; all that azcopy's would do is the chmod.
.azurite/.made: packaging/azurite/package.json packaging/azurite/package-lock.json | $(VENV)/.dev
	@mkdir -p .azurite
	cp packaging/azurite/package.json packaging/azurite/package-lock.json .azurite/
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm --prefix .azurite ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error
	chmod +x .azurite/node_modules/@azure-tools/azcopy-linux/dist/bin/azcopy_linux_amd64
	@touch $@

.PHONY: setup
setup: $(VENV)/.dev .azurite/.made

# --- Running. ---

.PHONY: demo
demo: $(VENV)/.runtime
	@$(APT) e2fsprogs
	$(BIN)/data-mover demo

.PHONY: test test-all bench soak
# Two processes, each test file in one of them: many tests wait for another process, and one file's fixtures are made once.
test: setup
	$(PYTEST) -n 2 --dist loadfile -m "$(QUICK)" $(PYTEST_ARGS)

test-all: setup
	$(PYTEST) -m "not soak and not bench" $(PYTEST_ARGS)

# The peers are the distribution's. BENCH_ARGS: see benchmarks/disk_path.py --help.
bench: setup
	@$(APT) zstd e2fsprogs restic borgbackup python3-pyfuse3 nginx-light curl openssl
	$(BIN)/python benchmarks/disk_path.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/page_blob.py
	$(BIN)/python benchmarks/files.py
	$(BIN)/python benchmarks/recovery.py
	$(PYTEST) -m bench -s $(PYTEST_ARGS)

# Against a real account, which DATA_MOVER_SMOKE_CONTAINER names: see tests/azure/smoke.py.
.PHONY: azure-smoke
azure-smoke: setup
	$(BIN)/python -m tests.azure.smoke

# Empty Debian machines that boot, become workers and live on; needs root.
.PHONY: boot-test
boot-test: setup
	$(PYTEST) -m boot $(PYTEST_ARGS)

# The package for the distribution that this runs on, into dist/.
.PHONY: deb
deb:
	packaging/deb/build.sh

# Other readers of file systems over the whole corpus, beside ours, into a table of docs/file-systems.md. Some of them are AGPL:
# they get an environment of their own, which nothing else uses. Needs root, loop devices and FUSE.
.oracles/.made: $(LOCKS)/oracles.txt | $(VENV)/.made
	$(PYTHON) -m venv --clear .oracles
	.oracles/bin/python -m pip install --disable-pip-version-check --quiet --quiet --require-hashes --only-binary :all: -r $<
	@touch $@

.PHONY: oracles
oracles: $(VENV)/.dev .oracles/.made
	@$(APT) e2fsprogs xfsprogs ntfs-3g dosfstools mtools exfatprogs exfat-fuse wimtools \
		user-mode-linux kmod lvm2 thin-provisioning-tools mdadm fdisk
	$(BIN)/python -m tests.flr.oracles.table --python .oracles/bin/python

soak: setup
	$(PYTEST) -m soak -s $(PYTEST_ARGS)

# All of them, even when one fails: one round then tells all.
CHECKS := "ruff check ." "ruff format --check ." "mypy agent mover flr" \
	"python packaging/checks/imports.py" "python packaging/checks/licences.py" "python packaging/checks/paths.py" \
	"python packaging/protocol_pages.py --check" "python packaging/configuration_page.py --check"

.PHONY: lint
lint: $(VENV)/.dev
	@failed=0; for check in $(CHECKS); do echo "$$check"; $(BIN)/$$check || failed=1; done; exit $$failed

# --- Locking. The public index is named here and nowhere else; the files bear no header, so no machine's settings. ---

# Each file is a whole environment: the demo installs runtime.txt, the Debian package ships systemd.txt, developers use
# dev.txt; build.txt comes before any of them. oracles.txt is beside them all: `make oracles` alone installs it.
# `--constraints` makes the larger ones repeat the smaller ones' versions. One version of a package for all Pythons
# ("fewest"), so that what was tested is what runs.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-annotate --no-header --upgrade --default-index https://pypi.org/simple --system-certs

.PHONY: lock
lock: $(VENV)/.dev
	$(COMPILE) --group build -o $(LOCKS)/build.txt
	$(COMPILE) pyproject.toml --constraints $(LOCKS)/build.txt -o $(LOCKS)/runtime.txt
	$(COMPILE) pyproject.toml --extra systemd --constraints $(LOCKS)/runtime.txt -o $(LOCKS)/systemd.txt
	$(COMPILE) pyproject.toml --extra systemd --group dev --constraints $(LOCKS)/systemd.txt --constraints $(LOCKS)/build.txt -o $(LOCKS)/dev.txt
	$(COMPILE) --group oracles --constraints $(LOCKS)/dev.txt -o $(LOCKS)/oracles.txt

.PHONY: prove-fresh
prove-fresh:
	packaging/prove-fresh.sh

.PHONY: clean
clean:
	rm -rf $(VENV) .azurite .oracles build dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

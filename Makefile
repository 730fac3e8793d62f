.DEFAULT_GOAL := help
BIN := .venv/bin

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

.venv/bootstrapped: requirements/bootstrap.txt
	@scripts/make-venv $(PYTHON)
	@touch $@

.venv/demo: .venv/bootstrapped requirements/ems.txt pyproject.toml
	@scripts/install requirements/ems.txt
	@touch $@

.venv/dev: .venv/bootstrapped requirements/dev.txt pyproject.toml
	@scripts/install requirements/dev.txt
	@touch $@ .venv/demo

demo: .venv/demo  ## Run the main job on this laptop: a learning curve, and a sweep over random matrices
	@PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo

test: .venv/dev  ## Run all tests, installing what they need
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || scripts/debian-packages postgresql
	@Rscript -e 'for (name in c("DBI", "RSQLite", "RPostgreSQL")) loadNamespace(name)' >/dev/null 2>&1 || \
		scripts/debian-packages r-base-core r-cran-dbi r-cran-rsqlite r-cran-rpostgresql
	@command -v octave-cli >/dev/null || scripts/debian-packages octave
	@command -v sqlite3 >/dev/null || scripts/debian-packages sqlite3
	@{ command -v mvn && command -v javac; } >/dev/null || scripts/debian-packages default-jdk-headless maven
	@{ command -v slurmctld && command -v slurmdbd && command -v mariadbd; } >/dev/null || \
		scripts/debian-packages slurm-wlm munge slurmdbd mariadb-server environment-modules
	@{ command -v ip && command -v fish && command -v tcsh && test -x /usr/sbin/sshd && test -e /usr/share/doc/libpam-google-authenticator; } >/dev/null || \
		scripts/debian-packages openssh-server iproute2 fish tcsh libpam-google-authenticator
	@$(BIN)/python -m ems.engine.install
	@$(BIN)/python -m tests.engine.oldest
	@$(BIN)/python -m tests.databases.bigquery_server
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -n auto --dist loadgroup

check: .venv/dev  ## Ruff, mypy, the guard tests and the documentation's
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pytest tests/test_architecture.py tests/test_guards.py tests/test_documentation.py

drill: .venv/dev  ## Every process killed at every phase, and all other faults, the dearest tests of databases; as root on Linux (more than an hour); it ends with a table
	@PATH="$(CURDIR)/$(BIN):$$PATH" EMS_DRILL=1 $(BIN)/pytest -o "python_files=test_*.py drill_*.py" -m "drill or trial" -n auto --dist loadgroup -v

benchmark: .venv/dev  ## What EMS adds to `pulumi up`
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python benchmarks/overhead.py

reference: .venv/dev  ## Write docs/reference anew from the code
	@$(BIN)/python -m scripts.reference

lock: .venv/bootstrapped  ## Pin the requirements anew
	@scripts/lock

.PHONY: help demo test check drill benchmark reference lock

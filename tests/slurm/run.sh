#!/usr/bin/env bash
# `make test-slurm PYTHON`: Debian's SLURM where it is missing, then the tests on a cluster of one
# node that they start and stop. Wants root and apt-get, and says so where it has to skip.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

here() { command -v munged slurmctld slurmd sbatch srun scontrol >/dev/null; }
skip() { printf 'test-slurm: skipped, %s\n' "$1"; exit 0; }

install() {  # the packages without their services
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq &&
    apt-get install -qq -y --no-install-recommends slurmctld slurmd slurm-client munge >/dev/null
}

[ "$(id -u)" = 0 ] || skip 'slurmd wants root'
here || command -v apt-get >/dev/null || skip 'no SLURM and no apt-get'
here || install || skip 'its packages cannot be installed'
ISIC_SLURM=1 "$1" -m pytest -q tests/slurm

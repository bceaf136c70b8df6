#!/usr/bin/env bash
# A pool per NUMA node, on a virtual machine of two nodes. Prints a table as Markdown. What it
# needs: see lab-kernel.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
kernel=$(scripts/lab-kernel.sh)
bin/bus-test numa-lab --kernel "$kernel"

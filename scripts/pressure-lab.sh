#!/usr/bin/env bash
# Real pressure, in two places: a control group of this machine, and a virtual machine with
# version 2 of control groups. Prints both tables as Markdown. Needs root for the first, and for
# the second what lab-kernel.sh says.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
rounds=${ROUNDS:-3}

echo "## A control group of this machine"
echo
bin/bus-test pressure-lab --rounds "$rounds"

kernel=$(scripts/lab-kernel.sh)
echo
echo "## A virtual machine"
echo
bin/bus-test pressure-lab --rounds "$rounds" --limit-mib 512 --kernel "$kernel"

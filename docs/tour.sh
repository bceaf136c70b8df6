#!/usr/bin/env bash
# The tour of the README: starts a node in folders of its own, types the tour's commands and
# prints them with their real output. `make tour` runs it and writes the README.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

port=${TOUR_PORT:-14222}
dir=$(mktemp -d)
export ISOBAR_RUNTIME_DIR=$dir/run ISOBAR_STATE_DIR=$dir/state ISOBAR_LISTEN=127.0.0.1:$port
export PATH=$PWD/bin:$PATH
models=$dir/models
node=

cleanup() {
	trap - EXIT
	if [ -n "$node" ]; then
		# The next node takes over what the last one left, and drops it.
		kill -TERM "$node" 2>/dev/null && wait "$node" 2>/dev/null || true
		isobar run --ephemeral "${flags[@]}" >/dev/null 2>&1 &
		node=$!
		ready && kill -TERM "$node" && wait "$node" || true
	fi
	rm -rf "$dir"
}
trap cleanup EXIT

flags=(--device ram:ram-0=1GiB --model-root "$models")

start() {
	isobar run "${flags[@]}" >"$dir/node.log" 2>&1 &
	node=$!
	ready
}

# ready waits until the node answers, ten seconds at most.
ready() {
	for _ in $(seq 100); do
		isobar call list_devices >/dev/null 2>&1 && return
		kill -0 "$node" 2>/dev/null || break
		read -r -t 0.1 <> <(:) || true
	done
	cat "$dir/node.log" >&2
	return 1
}

# enter prints a command as a person types it, runs it and prints what it says.
enter() {
	{ printf '$ %s\n' "$1"; eval "$1" 2>&1 || true; echo; } | sed "s|$dir|/tmp/tour|g"
}

mkdir -p "$models"
python3 - "$models/demo.safetensors" <<'PY'
import json, struct, sys
# 96 MiB of weights: three tensors of 32 MiB.
n = 32 << 20
header = json.dumps({f"layers.{i}.weight": {"dtype": "BF16", "shape": [4096, 4096], "data_offsets": [i * n, (i + 1) * n]} for i in range(3)}).encode()
with open(sys.argv[1], "wb") as f:
    f.write(struct.pack("<Q", len(header)) + header)
    for i in range(3):
        f.write(bytes([i + 1]) * n)
PY

start
isobar watch pressure model >"$dir/events" 2>&1 &
watch=$!

echo '# Memory granted to one process, found by the next: no copy, and it stays.'
enter 'isobar call allocate size_bytes=64MiB persistent=true | examples/map.py --write hello -' | tee "$dir/out"
id=$(awk '/bytes in/ { print $1 }' "$dir/out")
enter "isobar call get_handle allocation_id=$id | examples/map.py -"

echo '# A model: loaded once, mapped by everybody, tensor by tensor.'
enter "isobar call load_model name=demo path=$models/demo.safetensors | examples/map.py -"
enter 'isobar status'

echo '# Would 900 MiB fit into this 1 GiB? What would have to go?'
enter 'isobar call allocate size_bytes=900MiB --dry-run --table'

echo '# 720 MiB are granted at once; the pressure rises, and the model that nobody reads goes.'
enter "isobar call allocate size_bytes=720MiB purpose=batch --table | grep -E '^(allocation_id|queued_ms|util)'"
sleep 4 # the dwell: a level falls only after three seconds
printf '$ isobar watch pressure model\n'
sed "s|$dir|/tmp/tour|g" "$dir/events"
echo
kill "$watch"
wait "$watch" 2>/dev/null || true

echo '# The node dies. What it granted does not.'
printf '$ kill -9 %s; isobar run &\n\n' "$node"
{ kill -9 "$node" && wait "$node"; } 2>/dev/null || true
start
enter "isobar call get_handle allocation_id=$id | examples/map.py -"

#!/usr/bin/env bash
# The tour of the README: starts a node in folders of its own, types the tour's commands and
# prints them with their real output. After a change of what is shown:
#
#     make isobar && docs/tour.sh > docs/tour.txt        # and copy what changed to the README
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
	printf '$ %s\n' "$1"
	eval "$1" 2>&1 | sed "s|$dir|/tmp/tour|g" || true
	echo
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
echo '# Memory for one process, mapped by another: no copy, and it stays.'
enter 'isobar call allocate size_bytes=67108864 persistent=true purpose=demo | tee "$dir/grant.json" | examples/map.py --write "hello" -'
id=$(python3 -c 'import json; r = json.load(open("'"$dir"'/grant.json")); print(r.get("data", r)["allocation_id"])')
enter "isobar call get_handle allocation_id=$id | examples/map.py -"

echo '# A model: loaded once, mapped by everybody, tensor by tensor.'
enter "isobar call load_model name=demo path=$models/demo.safetensors | examples/map.py -"
enter 'isobar status'

echo '# Would it fit? What would have to go?'
enter 'isobar call allocate size_bytes=943718400 dry_run=true'

echo '# The node dies. Its grants do not.'
printf '$ kill -9 %s; isobar run &\n\n' "$node"
kill -9 "$node"
wait "$node" 2>/dev/null || true
start
enter "isobar call get_handle allocation_id=$id | examples/map.py -"
enter "isobar call deallocate allocation_id=$id"

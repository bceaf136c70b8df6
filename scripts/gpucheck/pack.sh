#!/usr/bin/env bash
# Packs what measures Isobar on a GPU host without a network: scripts/gpucheck/pack.sh FOLDER. The
# host needs Linux on x86-64, an NVIDIA driver, and a Python with numpy, safetensors and PyTorch.
#   PYTHON=      the Python that fetches wheels (python3)
#   GPU_PYTHON=  the version of the host's Python (3.12): for wheels that have compiled parts
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=$1
limit=$((60 << 20))
python=${PYTHON:-python3}

rm -rf "$out"
mkdir -p "$out/check" "$out/client" "$out/wheels"
cp scripts/gpucheck/gpu-check scripts/gpucheck/README.md "$out"
cp scripts/gpucheck/check/*.py "$out/check"
cp -r clients/python/src/isobar "$out/client"
find "$out/client" -name __pycache__ -prune -exec rm -rf {} +

programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
build() { CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$programs/$1" "${@:2}"; }
build isobar ./cmd/node
build isobar-cuda -tags cuda ./cmd/node
build bus-test ./cmd/bus-test
CGO_ENABLED=0 GOOS=linux GOARCH=amd64 go test -c -trimpath -ldflags '-s -w' -o "$programs/cuda.test" ./device/cuda
tar -C "$programs" -c . | gzip -6 >"$out/programs.tar.gz"

# The last two are loaders to compare with; a host whose Python cannot load them says so in the table.
tags=()
for n in 17 27 28 34 35; do tags+=(--platform "manylinux_2_${n}_x86_64"); done
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp \
	--python-version "${GPU_PYTHON:-3.12}" "${tags[@]}" --platform manylinux2014_x86_64 --dest "$out/wheels" \
	nats-py==2.16.0 msgpack==1.2.4 fastsafetensors==0.5.0 runai-model-streamer==0.16.1

size=$(du -sb "$out" | cut -f1)
echo "$out: $((size >> 20)) MiB"
if [ "$size" -gt "$limit" ]; then
	echo "that is more than $((limit >> 20)) MiB" >&2
	exit 1
fi

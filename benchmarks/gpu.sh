#!/usr/bin/env bash
# benchmarks/gpu.sh [WHEELS]: every GPU figure by one command, in under 8 minutes on one GPU.
#
# A bare machine needs Python 3.12, torch >= 2.11 and transformers >= 5.17; nothing is downloaded. Other packages that it
# lacks are installed from the folder WHEELS into a temporary folder. Without WHEELS, or where it lacks one, they are
# named with the command that fills it elsewhere.
# Environment: PYTHON (python3), OUT (benchmarks/results, where gpu.json goes), SMALL=1 (tiny shapes, on a CPU too).
#
# Every part has a time limit and enters gpu.json as soon as it ends, so that a run that is cut off keeps its results.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$here") python=${PYTHON:-python3} out=${OUT:-$here/results} small=()
[ -z "${SMALL:-}" ] || small=(--small)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir -p "$out" "$scratch/path" "$scratch/parts"
ln -s "$root" "$scratch/path/actionvit"
export PYTHONPATH=$scratch/path${PYTHONPATH:+:$PYTHONPATH}

lacking() {
  "$python" - <<'END'
import importlib.util

modules = {"decord": "decord2", "sklearn": "scikit-learn", "PIL": "pillow", "yaml": "pyyaml", "pytest_timeout": "pytest-timeout"}
modules |= {name: name for name in ("av", "h5py", "click", "tqdm", "joblib", "scipy", "threadpoolctl", "safetensors")}
modules |= {name: name for name in ("huggingface_hub", "pytest", "pluggy", "iniconfig", "packaging", "pygments")}
print(*sorted(package for module, package in modules.items() if importlib.util.find_spec(module) is None))
END
}
missing=$(lacking)
if [ -n "$missing" ] && [ -n "${1:-}" ]; then
  # shellcheck disable=SC2086  # several words
  "$python" -m pip install -q --no-index --no-deps --find-links "$1" --target "$scratch/path" $missing || exit 1
  missing=$(lacking)
fi
if [ -n "$missing" ]; then
  echo "lacking: $missing; fill a folder where there is a network, and give it: benchmarks/gpu.sh WHEELS" >&2
  echo "  pip download --only-binary :all: --no-deps --python-version 3.12 --platform manylinux_2_28_x86_64 -d WHEELS $missing" >&2
  exit 1
fi

# part NAME SECONDS COMMAND...: run a command within a time limit, then renew gpu.json.
part() {
  local name=$1 limit=$2 began=$SECONDS code=0
  shift 2
  [ -z "${SMALL:-}" ] || limit=$((5 * limit)) # a busy machine; the figures mean nothing then
  echo "$name (at most $limit s)"
  timeout -k 5 "$limit" "$@" >"$scratch/parts/$name.log" 2>&1 || code=$?
  [ "$code" = 0 ] || tail -n 5 "$scratch/parts/$name.log" >&2
  echo "$name $code $((SECONDS - began))" >>"$scratch/parts/times"
  "$python" "$here/gpu_table.py" "$scratch/parts" --out "$out/gpu.json" >"$scratch/table"
}

device=$("$python" -c 'import torch; print("cuda" if torch.cuda.is_available() else "cpu")')
if [ "$device" = cpu ] && [ -z "${SMALL:-}" ]; then
  echo "torch sees no GPU here; SMALL=1 tries the script on the CPU" >&2
  exit 1
fi
cores=$("$python" -c 'import os; print(len(os.sched_getaffinity(0)))')
bench=(--clips 512 --plain-clips 48 --seconds 3 --no-compile)
probe=(--data "like clip" --peer-parts 1 --peer-tols 1e-4)
tune=(--clips 64 --batch 16 --epochs 3)
if [ -n "${SMALL:-}" ]; then
  bench=(--clips 8 --plain-clips 2 --batch-size 2 --seconds 0.01 --workers 1 --no-compile)
  probe+=(--clips 60 --test 20 --width 12 --classes 4)
  tune=(--clips 2 --batch 2 --epochs 2 --depth 2)
fi
mapfile -t tests < <(grep -l 'mark\.gpu' "$root"/tests/*.py)
part extraction 210 "$python" "$here/bench_gpu.py" "${bench[@]}" "${small[@]}" --out "$scratch/parts/extraction.json"
part finetune 90 "$python" "$here/bench_finetune.py" --device "$device" --train last:1 all --workers "$cores" --peer \
  "${tune[@]}" "${small[@]}" --out "$scratch/parts/finetune.json"
part probe 60 "$python" "$here/bench_probe.py" --jobs "$cores" "${probe[@]}" --out "$scratch/parts/probe.json"
part tests 110 "$python" -m pytest -q -p no:cacheprovider --rootdir "$root" -c "$root/pyproject.toml" -m gpu \
  --junitxml "$scratch/parts/tests.xml" "${tests[@]}"
cat "$scratch/table"

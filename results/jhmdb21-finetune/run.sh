#!/usr/bin/env bash
# results/jhmdb21-finetune/run.sh CLIP ROOT [DEVICE], in an empty folder: CLIP is a Hugging Face folder of CLIP ViT-B/16's
# vision tower, ROOT the clips in class folders, DEVICE cpu, cuda, cuda:1 or auto. A linear probe, the last block, the last
# four blocks and, where DEVICE is cuda, all of the encoder, over the same grouped splits. README.md, report/ and runs/ are
# to be kept; features-cache/, clip-inflated/ (both used again if they are there) and work/ (the whole runs) are not.
# EPOCHS, TRAIN="last:1" and the other settings below may be given in the environment; VARIANT=tiny tries the script out.
set -euo pipefail
clip=$1 root=$2 device=${3:-auto} here=$(cd "$(dirname "$0")" && pwd)
. "$here/../made.sh"
variant=${VARIANT:-base} folds=${FOLDS:-5} views=${VIEWS:-4} batch=${BATCH:-16} memory=${MEMORY:-16}
epochs=${EPOCHS:-10} patience=${PATIENCE:-4} lr=${LR:-1e-4} # of the last blocks
all_epochs=${ALL_EPOCHS:-5} all_lr=${ALL_LR:-3e-5}
case $device in cuda*) train=${TRAIN:-last:1 last:4 all} ;; *) train=${TRAIN:-last:1 last:4} ;; esac
export ACTIONVIT_RUNS=work
dataset=("$root" --layout folder --name "${NAME:-jhmdb21}" --variant "$variant")
splits=(--protocol grouped --folds "$folds")
weights=()
if [ "$variant" != tiny ]; then
  weights=(--weights clip-inflated)
  [ -d clip-inflated ] || actionvit weights inflate "$clip" clip-inflated
fi

# said COMMAND…: run it, and note what it says, but for the lines of epochs (history.csv has them), and how long it took.
said() {
  local began=$SECONDS
  "$@" 2>&1 | tee /dev/stderr | sed '/ epoch *[0-9]*: /d' >>said.txt
  printf '(%s %s: %d s)\n\n' "$2" "$run" $((SECONDS - began)) >>said.txt
}

rm -rf said.txt work report runs
run=$variant-linear-grouped runs=("$variant-linear-grouped")
said actionvit extract "${dataset[@]}" "${weights[@]}" --device "$device"
said actionvit probe "${dataset[@]}" "${splits[@]}" --seeds 1 --run "$run"
for each in $train; do
  run=$variant-${each/:/}-grouped
  steps=(--epochs "$epochs" --patience "$patience" --lr "$lr" --views "$views")
  [ "$each" != all ] || steps=(--epochs "$all_epochs" --patience "$patience" --lr "$all_lr")
  said actionvit finetune "${dataset[@]}" "${weights[@]}" "${splits[@]}" --train "$each" "${steps[@]}" --batch "$batch" \
    --memory "$memory" --device "$device" --run "$run"
  runs+=("$run")
done
actionvit report "${runs[@]}" --out report
rm -f report/figures/*.png report/figures/*.pdf
for run in "${runs[@]}"; do
  mkdir -p "runs/$run"
  cp work/"$run"/{run.json,metrics.json,history.csv} "runs/$run" 2>/dev/null || true # a probe has no history
done
{
  cat "$here/about.md" report/report.md
  printf '\n## What the commands said\n\n```\n%s\n```\n' "$(cat said.txt)"
  made 'results/jhmdb21-finetune/run.sh CLIP ROOT DEVICE'
} >README.md
rm said.txt

#!/usr/bin/env bash
# results/jhmdb21-finetune/run.sh CLIP ROOT [DEVICE], in an empty folder: CLIP is a Hugging Face folder of CLIP ViT-B/16's
# vision tower, ROOT the clips in class folders, DEVICE cpu, cuda, cuda:1 or auto. Trains a linear probe, the last block, the last
# four blocks and, if DEVICE is cuda, the whole encoder, on the same grouped splits; on cuda the last three run in parallel.
# Commit README.md, report/ and runs/. Do not commit features-cache/, clip-inflated/ (both are reused) and work/ (complete
# runs, logs). One center view is tested, as by the probe. Environment variables override the settings below; VARIANT=tiny
# tests the script.
set -euo pipefail
clip=$1 root=$2 device=${3:-auto} here=$(cd "$(dirname "$0")" && pwd) given=
for name in PRECISION VARIANT FOLDS VIEWS CROPS BATCH MEMORY EPOCHS PATIENCE LR ALL_EPOCHS ALL_LR TRAIN SIDE_BY_SIDE; do
  [ -z "${!name-}" ] || given+="$name='${!name}' "
done
. "$here/../made.sh"
precision=${PRECISION:-auto} variant=${VARIANT:-base} folds=${FOLDS:-5} views=${VIEWS:-4} crops=${CROPS:-1} batch=${BATCH:-16} memory=${MEMORY:-16}
epochs=${EPOCHS:-8} patience=${PATIENCE:-4} lr=${LR:-1e-4} # of the last blocks
all_epochs=${ALL_EPOCHS:-4} all_lr=${ALL_LR:-3e-5}
case $device in cuda*) default='last:1 last:4 all' side=1 ;; *) default='last:1 last:4' side='' ;; esac
train=${TRAIN:-$default} side=${SIDE_BY_SIDE-$side}
linked "$root"
dataset=(data/jhmdb21 --format folder --dataset-name "${NAME:-jhmdb21}" --variant "$variant")
splits=(--protocol grouped --folds "$folds")
export ACTIONVIT_RUNS=work
rm -rf work report runs
mkdir -p work/logs

# said RUN COMMAND…: run the command; log its output and its duration.
said() {
  local log=work/logs/$1.txt began=$SECONDS
  "${@:2}" | tee -a "$log"
  printf '(%s: %d s)\n' "$3" $((SECONDS - began)) | tee -a "$log"
}

weights=()
if [ "$variant" != tiny ]; then
  weights=(--weights clip-inflated)
  [ -d clip-inflated ] || actionvit weights inflate "$clip" clip-inflated
fi
runs=("$variant-linear-grouped") started=()
said "${runs[0]}" actionvit extract "${dataset[@]}" "${weights[@]}" --device "$device" --precision "$precision"
said "${runs[0]}" actionvit probe "${dataset[@]}" "${splits[@]}" --seeds 1 --run-name "${runs[0]}"
for each in $train; do
  run=$variant-${each/:/}-grouped
  steps=(--epochs "$epochs" --patience "$patience" --lr "$lr" --cached-views "$views" --crops "$crops")
  [ "$each" != all ] || steps=(--epochs "$all_epochs" --patience "$patience" --lr "$all_lr" --crops "$crops")
  said "$run" actionvit finetune "${dataset[@]}" "${weights[@]}" "${splits[@]}" --train "$each" "${steps[@]}" \
    --batch-size "$batch" --frame-cache-gib "$memory" --checkpoint-every 60 --device "$device" --precision "$precision" --run-name "$run" &
  runs+=("$run")
  if [ -n "$side" ]; then started+=($!); else wait $!; fi
done
failed=0
for each in "${started[@]}"; do wait "$each" || failed=$?; done
[ "$failed" = 0 ] || exit "$failed"
actionvit report "${runs[@]}" --output report
rm -f report/figures/*.png report/figures/*.pdf
{
  cat "$here/about.md" report/report.md
  printf '\n## Output of the commands\n\n```\n'
  for run in "${runs[@]}"; do sed '/ epoch *[0-9]*: /d' "work/logs/$run.txt"; done # history.csv has the epochs
  printf '```\n'
  [ -z "$side" ] || printf '\nThe fine-tunings ran in parallel; each one is faster alone.'
  printf '\n'
  made "${given}results/jhmdb21-finetune/run.sh CLIP ROOT $device"
} >README.md
for run in "${runs[@]}"; do
  mkdir -p "runs/$run"
  for file in metrics.json history.csv; do [ ! -e "work/$run/$file" ] || cp "work/$run/$file" "runs/$run"; done
done

#!/usr/bin/env bash
# results/jhmdb21-tiny/run.sh ROOT: ROOT holds the 523 clips in class folders. A few minutes on two CPU cores. Writes below
# the working directory: caches, runs, report.
set -euo pipefail
root=$1
given=(--format folder --dataset-name jhmdb21)
for variant in tiny tiny-hr; do
  for weights in built-in untrained; do
    actionvit extract "$root" "${given[@]}" --variant $variant --weights $weights --cache cache-$weights
    actionvit probe "$root" "${given[@]}" --variant $variant --cache cache-$weights --protocol grouped --seeds 5 --run-name $variant-$weights --overwrite
  done
done
actionvit report tiny-built-in tiny-untrained tiny-hr-built-in tiny-hr-untrained --output report
actionvit report tiny-hr-built-in tiny-hr-untrained --output report-hr

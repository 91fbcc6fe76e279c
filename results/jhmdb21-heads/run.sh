#!/usr/bin/env bash
# results/jhmdb21-heads/run.sh ROOT CACHE [HEADS], in an empty folder: ROOT holds the clips in class folders, CACHE is the
# features-cache/ of results/jhmdb21-clip/run.sh. Writes tables and curves to heads/, shots/, imbalance/ and splits/, and all of
# them to README.md. `attentive` and `mlp` are trained by gradient descent and take 20 minutes on one core, the others a few.
set -euo pipefail
root=$1 cache=$2 heads=${3:-linear,attentive,mlp,knn,centroid} here=$(cd "$(dirname "$0")" && pwd)
. "$here/../made.sh"
linked "$root"
ln -sfn "$(cd "$cache" && pwd)" features-cache
dataset=(data/jhmdb21 --format folder --dataset-name jhmdb21 --variant base --protocol grouped)
experiment() { actionvit experiment "$1" "${dataset[@]}" "${@:2}" --jobs "${JOBS:-2}" --output "$1" >"$1.txt"; }
running=()
experiment heads --head "$heads" --shots 1,4,16 --seeds 1 & running+=($!)
experiment shots --shots 1,2,4,8,16 --seeds 10 & running+=($!)
experiment imbalance --factors 1,4,16 --seeds 5 & running+=($!)
experiment splits --shards 4 --seeds 5 & running+=($!)
for one in "${running[@]}"; do wait "$one"; done
{
  cat "$here/about.md"
  printf '\n## Heads × weightings × shots\n\n![Top-1 against clips per class](heads/curves.png)\n\n'
  cat heads/heads.md
  printf '\n## Few clips per class, linear head\n\n![Top-1 against clips per class](shots/curves.png)\n\n'
  cat shots/shots.md
  printf '\n## Long tails, linear head\n\n![Tail classes](imbalance/tail.png) ![All classes](imbalance/mean_class_accuracy.png)\n\n'
  cat imbalance/imbalance.md
  printf '\n## Splits and shards\n\n'
  cat splits/splits.md
  printf '\n![Clips of each class in each shard, first split](splits/shards.png)\n\n'
  cat splits/shards.md
  printf '\n'
  made "results/jhmdb21-heads/run.sh ROOT CACHE${3+ $3}"
} >README.md
rm heads.txt shots.txt imbalance.txt splits.txt

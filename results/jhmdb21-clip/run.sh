#!/usr/bin/env bash
# results/jhmdb21-clip/run.sh CLIP ROOT [VARIANT...], in an empty folder: CLIP is a Hugging Face folder of CLIP ViT-B/16's vision
# tower, ROOT the clips in class folders. `base` without a VARIANT takes about a quarter of an hour on two CPU cores; `base hr`
# takes ten times as long, or a minute on a GPU. Writes features-cache/, runs/, report/ and README.md. After an interruption,
# it embeds the remaining videos; with PRECISION=bf16 it continues on a CPU with embeddings from a GPU.
set -euo pipefail
clip=$1 root=$2 here=$(cd "$(dirname "$0")" && pwd)
variants=("${@:3}")
[ ${#variants[@]} -gt 0 ] || variants=(base)
. "$here/../made.sh"
linked "$root"
dataset=(data/jhmdb21 --format folder --dataset-name jhmdb21) weights=() runs=()
for variant in "${variants[@]}"; do
  dataset+=(--variant "$variant")
  weights+=(--weights "$variant=clip-inflated")
  runs+=("$variant-linear-grouped" "$variant-linear-balanced-grouped")
done
[ -d clip-inflated ] || actionvit weights inflate "$clip" clip-inflated
actionvit extract "${dataset[@]}" "${weights[@]}" --precision "${PRECISION:-auto}" | tee -a extracted.txt || [ $? = 3 ] # 3: some failed, and the report says so
actionvit probe "${dataset[@]}" --class-weight none,balanced --protocol grouped --seeds 5 \
  --jobs "$(getconf _NPROCESSORS_ONLN)" --overwrite | tee probed.txt
actionvit report "${runs[@]}" --attention --output report
{
  cat "$here/about.md"
  for run in "${runs[@]}"; do printf '[%s](runs/%s/metrics.json)\n' "$run" "$run"; done
  printf '\n'
  printf '\n## Results\n\n'
  cat report/report.md
  printf '\n## Output of the commands\n\n```\n%s\n\n%s\n```\n' "$(cat extracted.txt)" "$(cat probed.txt)"
  printf '\nEmbeddings in %s. ' "$(sed -n 's/.*"precision": "\(.*\)".*/\1/p' features-cache/jhmdb21/*/key.json | sort -u | paste -sd, -)"
  made "results/jhmdb21-clip/run.sh CLIP ROOT${3+ ${variants[*]}}"
} >README.md

#!/usr/bin/env bash
# results/jhmdb21-encoders/run.sh CLIP ROOT, in an empty folder: CLIP is a Hugging Face folder of CLIP ViT-B/16's vision tower with its
# preprocessor_config.json, ROOT the clips in class folders. Half an hour on two CPU cores. Writes features-cache/, runs/, report/, and the files
# to commit: README.md, summary.csv, report.html and RUN/metrics.json. After an interruption, it embeds the remaining videos.
set -euo pipefail
clip=$(cd "$1" && pwd) root=$2 here=$(cd "$(dirname "$0")" && pwd)
. "$here/../made.sh"
linked "$root"
dataset=(data/jhmdb21 --dataset-name jhmdb21)
runs=(base-linear-grouped clip-per-frame-linear-grouped)
ln -sfn "$clip" clip
[ -d clip-inflated ] || actionvit weights inflate clip -o clip-inflated
actionvit extract "${dataset[@]}" --variant base --weights base=clip-inflated --encoder clip-per-frame=clip \
  | tee -a extracted.txt || [ $? = 3 ] # 3: some videos failed, as the report lists
actionvit probe "${dataset[@]}" --variant base --variant clip-per-frame --protocol grouped --seeds 5 \
  --jobs "$(getconf _NPROCESSORS_ONLN)" --overwrite | tee probed.txt
actionvit report "${runs[@]/#/runs/}" --output report
cp report/report.html report/tables/summary.csv .
for run in "${runs[@]}"; do
  mkdir -p "$run"
  python3 -c 'import json, sys; json.dump(json.load(open(sys.argv[1])), open(sys.argv[2], "w"), separators=(",", ":"))' \
    "runs/$run/metrics.json" "$run/metrics.json"
done
{
  cat "$here/about.md"
  printf '**[The report](report.html)** (one file, no network) · [summary.csv](summary.csv) · metrics.json of'
  for run in "${runs[@]}"; do printf ' [%s](%s/metrics.json)' "$run" "$run"; done
  printf '\n\n## Results\n\n'
  cat report/report.md
  printf '\n## Output of the commands\n\n```\n%s\n\n%s\n```\n\n' "$(cat extracted.txt)" "$(cat probed.txt)"
  made "results/jhmdb21-encoders/run.sh CLIP ROOT"
} >README.md

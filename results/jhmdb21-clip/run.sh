#!/usr/bin/env bash
# results/jhmdb21-clip/run.sh CLIP ROOT, in an empty folder: CLIP is a Hugging Face folder of CLIP ViT-B/16's vision tower,
# ROOT the clips in class folders. Writes features-cache/, runs/, report/ and README.md; about a quarter of an hour on two
# CPU cores.
set -euo pipefail
clip=$1 root=$2 here=$(cd "$(dirname "$0")" && pwd)
. "$here/../made.sh"
dataset=("$root" --layout folder --name jhmdb21 --variant base)
[ -d clip-inflated ] || actionvit weights inflate "$clip" clip-inflated
actionvit extract "${dataset[@]}" --weights clip-inflated | tee said.txt
actionvit probe "${dataset[@]}" --class-weight none --class-weight balanced --protocol grouped --seeds 5 | tee -a said.txt
actionvit report base-linear-grouped base-linear-balanced-grouped --out report
{
  cat "$here/about.md" report/report.md
  printf '\n## What the commands said\n\n```\n%s\n```\n' "$(cat said.txt)"
  made 'results/jhmdb21-clip/run.sh CLIP ROOT'
} >README.md
rm said.txt

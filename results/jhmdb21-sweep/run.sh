#!/usr/bin/env bash
# results/jhmdb21-sweep/run.sh ROOT: frames × sizes of the built-in `tiny` encoder on the clips in class folders below ROOT. Writes
# features-cache/, runs/, the table, its plot and README.md. After an interruption, it continues with the remaining settings.
set -euo pipefail
root=$1 here=$(cd "$(dirname "$0")" && pwd)
. "$here/../made.sh"
linked "$root"
actionvit sweep data/jhmdb21 --format folder --dataset-name jhmdb21 --variant tiny --num-frames 2,4,8 --size 64,112 --protocol grouped --output . | tee said.txt
{
  cat "$here/about.md" sweep.md
  printf '\n## Estimate before the sweep\n\n```\n%s\n```\n' "$(sed '/^$/,$d' said.txt)"
  printf '\n'
  made 'results/jhmdb21-sweep/run.sh ROOT'
} >README.md
rm said.txt

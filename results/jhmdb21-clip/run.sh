#!/usr/bin/env bash
# results/jhmdb21-clip/run.sh CLIP ROOT: CLIP is a Hugging Face folder of CLIP ViT-B/16's vision tower, ROOT the 523 clips
# in class folders. About a quarter of an hour on two CPU cores.
set -euo pipefail
clip=$1 root=$2
[ -d clip-inflated ] || actionvit weights inflate "$clip" clip-inflated
actionvit extract "$root" --layout folder --name jhmdb21 --variant base --weights clip-inflated
actionvit probe "$root" --layout folder --name jhmdb21 --variant base --class-weight none --class-weight balanced --protocol grouped --seeds 5
actionvit report base-linear-grouped base-linear-balanced-grouped --out report

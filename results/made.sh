# made NAME: say by which script the calling one goes, how long that took, and on what.
made() {
  local cpu gpu
  cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1)
  gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1) || gpu=
  printf 'Made by `%s` in %d s on %d cores (%s)%s; %s.\n' "$1" "$SECONDS" "$(getconf _NPROCESSORS_ONLN)" \
    "${cpu:-$(uname -m)}" "${gpu:+ and one $gpu}" "$(actionvit --version | sed 's/, version//')"
}

# linked ROOT: make data/jhmdb21 a link to it, so that no path of this machine stands in what is written.
linked() {
  mkdir -p data
  ln -sfn "$(cd "$1" && pwd)" data/jhmdb21
}

# made NAME: print the name, duration and machine of the calling script.
made() {
  local cpu gpu
  cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1)
  gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1) || gpu=
  printf 'Made by `%s` in %d s on %d cores (%s)%s; %s.\n' "$1" "$SECONDS" "$(getconf _NPROCESSORS_ONLN)" \
    "${cpu:-$(uname -m)}" "${gpu:+ and one $gpu}" "$(actionvit --version | sed 's/, version//')"
}

# linked ROOT: link data/jhmdb21 to ROOT, so that the output contains no path of this machine.
linked() {
  mkdir -p data
  ln -sfn "$(cd "$1" && pwd)" data/jhmdb21
}

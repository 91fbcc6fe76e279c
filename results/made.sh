# made NAME: say by which script the calling one goes, how long that took, and on what.
made() {
  local cpu
  cpu=$(sed -n 's/^model name[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n 1)
  printf '\nMade by `%s` in %d s on %d cores (%s); %s.\n' "$1" "$SECONDS" "$(getconf _NPROCESSORS_ONLN)" "${cpu:-$(uname -m)}" \
    "$(actionvit --version | sed 's/, version//')"
}

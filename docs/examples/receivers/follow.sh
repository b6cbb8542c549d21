#!/bin/sh
# A loop in the shell, for a look and for small jobs: each event is one line of JSON.
# `--since` begins in the past, with what the journal still has. The bridge keeps no queue for this loop.
handle() {
  printf '%s\n' "$1" # yours: mail it, or give it to jq
}

bridgectl tail '#' --since 15m --json -c "${BRIDGE_CONFIG:-bridge.yaml}" |
  while read -r event; do
    handle "$event"
  done

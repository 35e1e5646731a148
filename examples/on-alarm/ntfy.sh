#!/bin/sh
# Send an alarm to phones by ntfy: ntfy.sh TOPIC < alarm.json
set -eu
alarm=$(cat)
[ "$(printf %s "$alarm" | jq .muted)" = false ] || exit 0
priority=$(printf %s "$alarm" | jq -r 'if .over then "default" else "high" end')
printf %s "$alarm" | jq -r .text | curl --fail --silent --show-error --max-time 20 \
    -H "Priority: $priority" -H "Tags: gruard" --data-binary @- "${NTFY_SERVER:-https://ntfy.sh}/$1"

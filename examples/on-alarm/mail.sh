#!/bin/sh
# Mail an alarm: mail.sh RECEIVER < alarm.json
set -eu
alarm=$(cat)
[ "$(printf %s "$alarm" | jq .muted)" = false ] || exit 0
text=$(printf %s "$alarm" | jq -r .text)
{
    printf 'To: %s\nSubject: gruard alarm %s\n' "$1" "$(printf %s "$alarm" | jq -r '.id + " " + .moment')"
    printf 'MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n%s\n\n' "$text"
    printf %s "$alarm" | jq -r '.readings[] | "\(.channel): \(.value), expected \(.low) to \(.high)"'
} | PATH="$PATH:/usr/sbin" sendmail -i -t

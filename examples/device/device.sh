#!/bin/sh
# Prints the messages of a JSON stream as they come, and goes on after a restart: device.sh URL OFFSET-FILE
while :; do
  answer=$(curl -si -m 60 "$1?live=long-poll&timeout=25&offset=$(cat "$2" 2>/dev/null || echo -1)") || { sleep 5; continue; }
  head=$(printf '%s\n' "$answer" | tr -d '\r' | sed '/^$/q')
  offset=$(echo "$head" | grep -iE '^stream-(next|earliest)-offset:' | cut -d' ' -f2)
  [ "$offset" ] || { sleep 5; continue; }
  case $head in HTTP/*' 200'*) printf '%s\n' "$answer" | tr -d '\r' | sed '1,/^$/d' ;; esac
  echo "$offset" >"$2.new" && mv "$2.new" "$2"
  case $head in *[Ss]tream-[Cc]losed:*) exit ;; esac
done

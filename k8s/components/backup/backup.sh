#!/bin/sh
# Takes one copy of a Redis into $BACKUPS and keeps the newest $KEEP. A copy gets its name when it
# is whole and was checked, so a job that is cut off leaves nothing that looks like a backup.
set -eu

REDISCLI_AUTH=$(cat "$PASSWORD_FILE")
export REDISCLI_AUTH
name=millstream-$(date -u +%Y%m%dT%H%M%SZ).rdb
part=$BACKUPS/.$name.part
trap 'rm -f "$part"' EXIT

redis-cli -h "$REDIS_HOST" -p "$REDIS_PORT" --user backup --no-auth-warning --rdb "$part"
redis-check-rdb "$part"
sync "$part"
(cd "$BACKUPS" && sha256sum ".$name.part" | sed "s/ \..*/ $name/" >"$name.sha256")
mv "$part" "$BACKUPS/$name"
echo "took $name: $(wc -c <"$BACKUPS/$name") bytes"

find "$BACKUPS/" -maxdepth 1 -name 'millstream-*.rdb' | sort -r | tail -n "+$((KEEP + 1))" |
  while read -r old; do
    rm -f "$old" "$old.sha256"
    echo "dropped ${old##*/}"
  done

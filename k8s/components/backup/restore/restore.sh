#!/bin/sh
# Makes the copy $FILE (or the newest) what Redis reads when it starts next. What $DATA holds now is
# moved aside, not deleted. A copy whose digest or structure is wrong changes nothing.
set -eu

file=${FILE:-$(find "$BACKUPS/" -maxdepth 1 -name 'millstream-*.rdb' | sort | tail -n 1)}
file=$BACKUPS/${file##*/}
[ -f "$file" ] || { echo "there is no backup $file" >&2; exit 1; }
(cd "$BACKUPS" && sha256sum -c "${file##*/}.sha256")
redis-check-rdb "$file"

# With an append-only file switched on, Redis reads that and no dump.rdb: the copy becomes the base
# of a new one.
new=$DATA/.restoring
rm -rf "$new" && mkdir "$new"
cp "$file" "$new/appendonly.aof.1.base.rdb"
: >"$new/appendonly.aof.1.incr.aof"
{
  echo "file appendonly.aof.1.base.rdb seq 1 type b"
  echo "file appendonly.aof.1.incr.aof seq 1 type i"
} >"$new/appendonly.aof.manifest"
sync "$new"/*

aside=$DATA/before-$(date -u +%Y%m%dT%H%M%SZ)
[ ! -e "$DATA/appendonlydir" ] || mv "$DATA/appendonlydir" "$aside"
mv "$new" "$DATA/appendonlydir"
echo "restored ${file##*/}; what was there is in ${aside##*/}"

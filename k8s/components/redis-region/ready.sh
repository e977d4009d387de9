#!/bin/sh
# Whether Redis serves. And what it is, master or replica, is kept where region.conf reads it at the
# next start. Between a failover and the next probe a restart finds the role of before; then nobody is
# master, or the old one has no replica and takes no write: never are there two.
ask() {
  timeout 2 redis-cli -h 127.0.0.1 -p "${REDIS_PORT:-6379}" --tls --cacert /etc/redis/tls/ca.crt \
    --user probe --pass probe --no-auth-warning "$@" 2>&1
}
answer=$(ask PING)
if [ "$answer" != PONG ]; then
  echo "redis is not ready: $answer"
  exit 1
fi
kept=/data/role/replica.conf
case $(ask ROLE) in
  master*)
    rm -f "$kept"
    # Each time: a node that goes down must not bring back what was taken away before.
    sync /data/role
    ;;
  slave*)
    if [ ! -e "$kept" ]; then
      echo "include /etc/redis/conf/replica.conf" > "$kept.new"
      sync "$kept.new"
      mv "$kept.new" "$kept"
    fi
    ;;
  *)
    echo "redis does not say what it is"
    exit 1
    ;;
esac

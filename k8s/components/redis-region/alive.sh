#!/bin/sh
# As that of redis-standalone, over TLS.
answer=$(timeout 4 redis-cli -h 127.0.0.1 -p "${REDIS_PORT:-6379}" --tls --cacert /etc/redis/tls/ca.crt \
  --user probe --pass probe --no-auth-warning PING 2>&1)
case "$answer" in
  *PONG* | *LOADING* | *BUSY* | *MASTERDOWN* | *NOAUTH* | *WRONGPASS* | *NOPERM*) exit 0 ;;
esac
echo "redis does not answer: $answer"
exit 1

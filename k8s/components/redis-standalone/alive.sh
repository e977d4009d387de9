#!/bin/sh
# Whether Redis is worth keeping. One that loads its file, runs a long script or cannot be logged
# into is alive: to kill it would help nobody. `redis-cli` ends with 0 on such answers, so the
# answer is read. The user `probe` may do nothing but PING, so its password is no secret.
answer=$(timeout 4 redis-cli -h 127.0.0.1 -p "${REDIS_PORT:-6379}" --user probe --pass probe --no-auth-warning PING 2>&1)
case "$answer" in
  *PONG* | *LOADING* | *BUSY* | *MASTERDOWN* | *NOAUTH* | *WRONGPASS* | *NOPERM*) exit 0 ;;
esac
echo "redis does not answer: $answer"
exit 1

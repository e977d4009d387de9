#!/bin/sh
# Whether Redis serves: it has read its files and knows its users.
answer=$(timeout 4 redis-cli -h 127.0.0.1 -p "${REDIS_PORT:-6379}" --user probe --pass probe --no-auth-warning PING 2>&1)
[ "$answer" = PONG ] && exit 0
echo "redis is not ready: $answer"
exit 1

-- line_up: queue runs that came from a copy, the oldest first.
-- USES _lane _streams _moves _backlog _turns _place
--
-- ARGV retention_ms  how long the record of an ended run stays
-- ARGV count         runs to queue, at most
--
-- Returns how many are left
--
-- What had begun goes ahead of what had not. Sent twice it queues the next ones.

local PLACING = PREFIX .. 'placing'
for _, id in ipairs(redis.call('ZRANGE', PLACING, 0, tonumber(ARGV[2]) - 1)) do
  local key = run_key(id)
  local fence, priority, arm, tenant = unpack(redis.call('HMGET', key, 'fence', 'priority', 'arm', 'tenant'))
  if fence then
    requeue(id, ARGV[1])
  else
    place(id, key, level_of(arm, nil, priority or 'normal', key), tenant or '')
  end
  redis.call('ZREM', PLACING, id)
end
flush()
return redis.call('ZCARD', PLACING)

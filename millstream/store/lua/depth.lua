-- depth: how many runs of a lane are in which state, and how long the oldest has waited.
-- USES _lane
--
-- Returns {waiting, in_flight, scheduled, due, parked, dead, oldest_ms, workers, paused}
--   due        scheduled or parked runs whose time has come
--   oldest_ms  age of the oldest entry that no worker holds; 0 when there is none
--   paused     1 while workers take nothing new
--
-- Every figure costs the same however long the queue is.

local length, in_flight, oldest = 0, 0, 0
for _, level in ipairs(LEVELS) do
  local stream = STREAM[level]
  length = length + redis.call('XLEN', stream)
  local last = '0-0'
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  for _, group in ipairs(groups.err and {} or groups) do
    for at = 1, #group, 2 do
      if group[at] == 'pending' then in_flight = in_flight + group[at + 1] end
      if group[at] == 'last-delivered-id' then last = group[at + 1] end
    end
  end
  local waiting = redis.call('XRANGE', stream, '(' .. last, '+', 'COUNT', 1)[1]
  if waiting then
    local since = tonumber(string.match(waiting[1], '^%d+'))
    oldest = math.max(oldest, NOW - since)
  end
end
return {
  length - in_flight, in_flight, redis.call('ZCARD', TIMERS),
  redis.call('ZCOUNT', TIMERS, '-inf', digits(NOW)) + redis.call('ZCOUNT', PARKED, '-inf', digits(NOW)),
  redis.call('ZCARD', PARKED), redis.call('ZCARD', DEAD), math.max(0, oldest),
  redis.call('ZCOUNT', LEASES, digits(NOW), '+inf'), redis.call('HEXISTS', META, 'paused'),
}

-- depth: how many runs of a lane are in which state, and how long the oldest has waited.
-- USES _lane _backlog
--
-- Returns {waiting, in_flight, scheduled, due, parked, dead, oldest_ms, workers, added, gone, paused, limited}
--   due        scheduled or parked runs whose time has come
--   oldest_ms  age of the oldest entry that no worker holds, or of a run whose turn is next; 0 when
--              there is none
--   added      runs that the streams and backlogs have had since they were made
--   gone       how many of them are not there any more; both only grow, unless a stream is lost
--   paused     1 while workers take nothing new
--   limited    queued runs that wait for a permit of their limits; they are not among those waiting
--
-- Every figure costs the same however long the queue is.

local length, in_flight, oldest, added = 0, 0, 0, 0
for _, level in ipairs(LEVELS) do
  local stream = STREAM[level]
  length = length + redis.call('XLEN', stream)
  local info = redis.pcall('XINFO', 'STREAM', stream)
  for at = 1, info.err and 0 or #info, 2 do
    if info[at] == 'entries-added' then added = added + info[at + 1] end
  end
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
for _, level in ipairs(FRESH) do
  local waiting = redis.call('ZCARD', BACKLOG[level])
  length, added = length + waiting, added + waiting
  local next_ = waiting > 0 and redis.call('ZRANGE', BACKLOG[level], 0, 0)[1]
  local since = next_ and ours(redis.pcall('HGET', run_key(next_), 'enqueued'))
  if since then oldest = math.max(oldest, NOW - tonumber(since)) end
end
added = added + tonumber(redis.call('HGET', META, 'left') or '0')
local limited = redis.call('ZCARD', LIMITED)
return {
  length - in_flight, in_flight, redis.call('ZCARD', TIMERS),
  redis.call('ZCOUNT', TIMERS, '-inf', digits(NOW)) + redis.call('ZCOUNT', PARKED, '-inf', digits(NOW)),
  redis.call('ZCARD', PARKED), redis.call('ZCARD', DEAD), math.max(0, oldest),
  redis.call('ZCOUNT', LEASES, digits(NOW), '+inf'), added, math.max(0, added - length - limited),
  redis.call('HEXISTS', META, 'paused'), limited,
}

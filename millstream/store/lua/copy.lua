-- copy: read runs whole, each at one moment: its record, journal, messages, events and times.
-- USES _lane
--
-- ARGV side    'before' for runs that were accepted until a time, 'since' for those since then
-- ARGV began   that time, in ms; what was accepted within it is on both sides
-- ARGV budget  bytes after which no further run is read
-- ARGV ...     ids
--
-- Returns {read, run, run, ...}: how many of the ids were looked at, and per run that is here and on
-- this side {id, record, journal, received, events, ttl_ms, due_ms, dead_ms}; an empty text where
-- there is no such time
--
-- Reads only. A run alone may be larger than the budget.

local SIDE, BEGAN, BUDGET = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local answer, size = {0}, 0

local function weighed(reply)
  local found = ours(reply) or {}
  for _, part in ipairs(found) do
    if type(part) == 'table' then size = size + #part[2][2] else size = size + #part end
  end
  return found
end

for index = 4, #ARGV do
  if size > BUDGET then break end
  answer[1] = answer[1] + 1
  local id = ARGV[index]
  local key = run_key(id)
  local enqueued = tonumber(ours(redis.pcall('HGET', key, 'enqueued')) or '')
  if enqueued and (SIDE == 'before' and enqueued <= BEGAN or SIDE == 'since' and enqueued >= BEGAN) then
    answer[#answer + 1] = {
      id, weighed(redis.pcall('HGETALL', key)), weighed(redis.pcall('HGETALL', journal_key(id))),
      weighed(redis.pcall('HGETALL', received_key(id))), weighed(redis.pcall('XRANGE', events_key(id), '-', '+')),
      redis.call('PTTL', key),
      redis.call('ZSCORE', TIMERS, id) or redis.call('ZSCORE', PARKED, id) or '',
      redis.call('ZSCORE', DEAD, id) or '',
    }
  end
end
return answer

-- place: give runs whose keys were written from a copy their place in the lane.
-- USES _lane
--
-- ARGV ...  per run four values: id, ttl_ms (below 0: none), due_ms, dead_ms; empty where there is none
--
-- Returns how many runs were placed
--
--   queued, running     wait for `line_up`, in the order in which they came
--   scheduled, parked   until their time; without one it is now, since nobody knows when it would be
--   ended               until they expire. A child says its end once more: its parent may have been
--                       copied before it heard of it; and so does a parent that was cancelled, or has left tasks.
--                       It stands aside until all runs are here.
--
-- Safe to send twice. Whoever held a run in the store that was copied holds it no more.

if #ARGV % 4 ~= 0 then error('place: a run is cut short') end
local FINAL = {completed = true, failed = true, cancelled = true}
local PLACING, UNSAID = PREFIX .. 'placing', PREFIX .. 'unsaid'

local function keep(id, ttl)
  for _, key in ipairs({run_key(id), journal_key(id), events_key(id), received_key(id), spilled_key(id)}) do
    redis.call('PEXPIRE', key, digits(ttl))
  end
  redis.call('ZADD', ENDED, digits(NOW + ttl), id)
end

local function tell(id, state, result, failure, parent)
  if parent then
    redis.call('XADD', UNSAID, '*', 'kind', 'end', 'to', parent, 'id', id, 'state', state,
      'payload', state == 'completed' and result or failure)
  end
  if state == 'cancelled' and redis.call('HGET', received_key(id), '#open') then
    redis.call('XADD', UNSAID, '*', 'kind', 'down', 'run', id)
  end
  if redis.call('HGET', received_key(id), '#tasks') then redis.call('XADD', UNSAID, '*', 'kind', 'tasks', 'run', id) end
end

for at = 1, #ARGV, 4 do
  local id, ttl, due, dead = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2], ARGV[at + 3]
  local key = run_key(id)
  for _, index in ipairs({TIMERS, PARKED, ENDED, DEAD, PLACING}) do redis.call('ZREM', index, id) end
  local state, entry, enqueued, parent, result, failure =
    unpack(redis.call('HMGET', key, 'state', 'entry', 'enqueued', 'parent', 'result', 'error'))
  redis.call('HDEL', key, 'waiters', 'unowned', 'entry', 'permits', 'limit')
  if redis.call('HEXISTS', key, 'owner') == 1 then redis.call('HSET', key, 'owner', '') end
  if FINAL[state] then
    if dead ~= '' then redis.call('ZADD', DEAD, dead, id) end
    tell(id, state, result, failure, parent)
    keep(id, math.max(1, ttl))
  elseif state == 'scheduled' or state == 'parked' then
    redis.call('ZADD', state == 'parked' and PARKED or TIMERS, due ~= '' and due or NOW_TEXT, id)
  else
    -- As many as have come within one millisecond keep their order, too.
    local moment, number = string.match(entry or '', '^(%d+)%-(%d+)$')
    local score = (tonumber(moment) or tonumber(enqueued)) + math.min(tonumber(number or '0'), 999) / 1000
    redis.call('ZADD', PLACING, string.format('%.3f', score), id)
  end
end
return #ARGV / 4

-- cancel: end runs that have not ended.
-- USES _lane _streams _moves _backlog
--
-- ARGV retention_ms  how long the record of an ended run stays
-- ARGV ...           ids
--
-- Returns per id: 'cancelled' it has ended now; 'cancelling' its worker was told;
--                 the state it had already ended in; '' there is no such run
--
-- A queued run is only marked: its entry stays in the stream, and whoever takes it throws it away. One
-- that waits for its turn, or for a permit, leaves.

-- Take a run that has ended out of its backlog, or out of the line for a permit. What has not been in
-- a stream counts as one that the lane has had.
local function leave(id, key, priority, limit)
  if limit then
    ours(redis.pcall('ZREM', limited_key(limit), id))
    redis.call('ZREM', LIMITED, id)
    redis.call('HDEL', key, 'limit')
  elseif redis.call('ZREM', BACKLOG[priority or 'normal'], id) == 1 then
    redis.call('HINCRBY', META, 'left', 1)
  end
end

local RETENTION = ARGV[1]
local answers = {}
for index = 2, #ARGV do
  local id = ARGV[index]
  local key = run_key(id)
  local state, owner, entry, priority, limit =
    unpack(ours(redis.pcall('HMGET', key, 'state', 'owner', 'entry', 'priority', 'limit')) or {})
  if state == 'queued' or state == 'scheduled' or state == 'parked' then
    finish(id, 'cancelled', CANCELLED, RETENTION)
    redis.call('ZREM', TIMERS, id)
    redis.call('ZREM', PARKED, id)
    if entry == '' then leave(id, key, priority, limit) end
    answers[#answers + 1] = 'cancelled'
  elseif state == 'running' then
    redis.call('HSET', key, 'cancel', '1')
    -- A hint: where it cannot be left, the mark is found by the run's next commit.
    if ours(redis.pcall('SADD', control_key(owner), id)) then redis.call('PEXPIRE', control_key(owner), 3600000) end
    answers[#answers + 1] = 'cancelling'
  else
    answers[#answers + 1] = state or ''
  end
end
flush()
return answers

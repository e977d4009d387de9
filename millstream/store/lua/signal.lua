-- signal: put messages where their runs will find them, and have the runs look.
-- USES _lane _streams _moves
--
-- ARGV retention_ms  how long the record of an ended run stays
-- ARGV max_count     messages that may wait for one run
-- ARGV max_bytes     bytes that may wait for one run
-- ARGV remembered    message ids that one run remembers, the newest
-- ARGV ...           per message four values: run id, name, payload, message id
--
-- Returns per message: 'kept'; 'known' when the run has had a message of this id; 'full' at a bound;
--                      the state the run has ended in; '' there is no such run; 'occupied' when the
--                      key of what it receives holds something that is not ours
--
-- Only 'kept' has written anything. Safe to send twice: the second time the message is known.
--
-- What a run has received is a hash:
--   #         number of the last message          #count, #bytes   of those that wait
--   <number>  the message                         ~<name>          numbers that wait under a name
--   =<id>     number of the message of an id      @<number>        and the other way round
--   +<child>  queue of a child that has not ended
--   #open     how many were started and have not ended
--   #ends     how many ends wait                           #end     number of the last end
--   !<step>   what another agent does for a step           #tasks   how many of these there are
--
-- The name of a child's end is `c:` and the id of the child. It is taken once from a child that is
-- open, needs no id, and has room at any bound. A run that may be started again takes it too.

local RETENTION, MAX_COUNT, MAX_BYTES, REMEMBERED =
  ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

if (#ARGV - 4) % 4 ~= 0 then error('signal: a message is cut short') end

-- Whoever waits for it is queued, whoever runs is told: at once, and by the next sweep.
local function call_up(id, key, state, owner, awaits, name)
  local awaited = string.sub(name, 1, 2) == 'c:' and 'c' or name
  if state == 'parked' and string.find('\n' .. awaits .. '\n', '\n' .. awaited .. '\n', 1, true) then
    redis.call('ZREM', PARKED, id)
    requeue(id, RETENTION)
  elseif state == 'running' then
    if ours(redis.pcall('SADD', control_key(owner), id)) then redis.call('PEXPIRE', control_key(owner), 3600000) end
    redis.call('PUBLISH', PREFIX .. 'inbox:' .. owner, id .. '\n' .. name)
  end
end

-- Add a message to those that stand, and forget the oldest id; returns its number.
local function append(id, key, name, payload)
  local box = received_key(id)
  local count = redis.call('HINCRBY', box, '#', 1)
  local number, oldest = digits(count), '@' .. digits(count - REMEMBERED)
  local forgotten = redis.call('HGET', box, oldest)
  if forgotten then redis.call('HDEL', box, '=' .. forgotten, oldest) end
  local waiting = redis.call('HGET', box, '~' .. name)
  redis.call('HSET', box, number, payload, '~' .. name, waiting and waiting .. ' ' .. number or number)
  -- '2' says that it has called other agents, too.
  redis.call('HSETNX', key, 'received', '1')
  return number
end

local function keep_end(id, key, state, name, payload)
  local box = received_key(id)
  if state == 'completed' then return 'known' end
  local open = ours(redis.pcall('HDEL', box, '+' .. string.sub(name, 3)))
  if open ~= 1 then return open and 'known' or 'occupied' end
  if redis.call('HINCRBY', box, '#open', -1) == 0 then redis.call('HDEL', box, '#open') end
  redis.call('HSET', box, '#end', append(id, key, name, payload))
  redis.call('HINCRBY', box, '#ends', 1)
  return 'kept'
end

local function keep(id, key, state, name, payload, message)
  if state == 'completed' or state == 'failed' or state == 'cancelled' then return state end
  local box = received_key(id)
  local found = ours(redis.pcall('HMGET', box, '=' .. message, '#count', '#bytes'))
  if not found then return 'occupied' end
  local known, count, bytes = unpack(found)
  if known then return 'known' end
  if tonumber(count or '0') >= MAX_COUNT or tonumber(bytes or '0') + #payload > MAX_BYTES then return 'full' end

  local number = append(id, key, name, payload)
  redis.call('HSET', box, '=' .. message, number, '@' .. number, message)
  redis.call('HINCRBY', box, '#count', 1)
  redis.call('HINCRBY', box, '#bytes', #payload)
  return 'kept'
end

local answers = {}
for at = 5, #ARGV, 4 do
  local id, name, payload, answer = ARGV[at], ARGV[at + 1], ARGV[at + 2], ''
  local key = run_key(id)
  local state, owner, awaits = unpack(ours(redis.pcall('HMGET', key, 'state', 'owner', 'awaits')) or {})
  if state then
    if string.sub(name, 1, 2) == 'c:' then
      answer = keep_end(id, key, state, name, payload)
    else
      answer = keep(id, key, state, name, payload, ARGV[at + 3])
    end
    if answer == 'kept' then call_up(id, key, state, owner, awaits or '', name) end
  end
  answers[#answers + 1] = answer
end
flush()
return answers

-- How a run that was begun goes on, and how it ends. The words are those of `_streams`.

-- Tell everybody who waits for this run. A hint: whoever misses it reads the state later.
local function wake(id, waiters, state, payload)
  if #payload > 8192 then payload = '' state = 'look' end
  for waiter in string.gmatch(waiters, '%S+') do
    redis.call('PUBLISH', PREFIX .. 'inbox:' .. waiter, id .. '\n' .. state .. '\n' .. payload)
  end
end

local moments = {}

-- The time in so many milliseconds, as text. Most runs that end together are kept equally long.
local function after(ms)
  local moment = moments[ms]
  if not moment then
    moment = digits(NOW + ms)
    moments[ms] = moment
  end
  return moment
end

-- Hand a permit to the first in line; whether there was one. Each turn takes somebody out of it.
local function grant_next(limit)
  while true do
    local id = (ours(redis.pcall('ZPOPMIN', limited_key(limit))) or {})[1]
    if not id then return false end
    redis.call('ZREM', LIMITED, id)
    local key = run_key(id)
    local state, waits, crashes, arm =
      unpack(ours(redis.pcall('HMGET', key, 'state', 'limit', 'crashes', 'arm')) or {})
    if state == 'queued' and waits == limit then
      redis.call('HSET', permits_key(limit), id, '0')
      redis.call('HDEL', key, 'limit')
      deliver(id, key, level_of(arm, crashes, 'resume', key), 'permits', limit)
      return true
    end
  end
end

-- Give back the permits that a record names, a line each.
local function give_back(id, key, permits)
  redis.call('HDEL', key, 'permits')
  for limit in string.gmatch(permits, '[^\n]+') do
    if ours(redis.pcall('HDEL', permits_key(limit), id)) == 1 then grant_next(limit) end
  end
end

-- What `conclude` has to know of a record before it writes, in this order.
local LOOSE = {'waiters', 'bytes', 'said', 'error', 'received', 'parent', 'permits', 'arm'}

-- How runs of a trial end, of both its versions: by this it is judged. What is counted of a trial that is
-- over would stay for ever.
local function tally(key, state)
  local workflow, version = unpack(redis.call('HMGET', key, 'workflow', 'version'))
  local tried, kept = trial_of(workflow)
  if version and (version == tried or version == kept) then
    redis.call('HINCRBY', PREFIX .. 'tried', workflow .. ' ' .. version .. ' ' .. state, 1)
  end
end

-- Give a run its end. The first write is the one that a full memory refuses: all or nothing.
-- `loose` has what was asked of the record, from `first` on; `...` are further fields of the record.
local function conclude(id, key, state, payload, retention_ms, loose, first, ...)
  redis.call('HSET', key, 'state', state, 'ended', NOW_TEXT,
    state == 'completed' and 'result' or 'error', payload, ...)
  indexed[#indexed + 1] = after(retention_ms)
  indexed[#indexed + 1] = id
  -- The failure of an earlier attempt is not how this run ended.
  if loose[first + 3] and state == 'completed' then redis.call('HDEL', key, 'error') end
  if loose[first + 7] then tally(key, state) end
  -- Last of what touches the record: without a retention it is gone from here on.
  redis.call('PEXPIRE', key, retention_ms)
  local bytes = loose[first + 1]
  if bytes then
    redis.call('PEXPIRE', journal_key(id), retention_ms)
    -- Only what makes a journal of at least five digits can have been spilled.
    if #bytes > 4 then redis.call('PEXPIRE', spilled_key(id), retention_ms) end
  end
  if loose[first + 2] then redis.call('PEXPIRE', events_key(id), retention_ms) end
  if loose[first + 4] then
    local box = received_key(id)
    if state == 'cancelled' and ours(redis.pcall('HGET', box, '#open')) then post('kind', 'down', 'run', id) end
    -- It has called other agents, and tasks of theirs may go on.
    if loose[first + 4] == '2' and ours(redis.pcall('HGET', box, '#tasks')) then post('kind', 'tasks', 'run', id) end
    redis.call('PEXPIRE', box, retention_ms)
  end
  if loose[first + 5] then
    post('kind', 'end', 'to', loose[first + 5], 'id', id, 'state', state, 'payload', payload)
  end
  if loose[first + 6] then give_back(id, key, loose[first + 6]) end
  if loose[first] then wake(id, loose[first], state, payload) end
end

local function finish(id, state, payload, retention_ms)
  local key = run_key(id)
  conclude(id, key, state, payload, retention_ms, redis.call('HMGET', key, unpack(LOOSE)), 1)
end

-- Index a failed run among the dead letters. The oldest leave the index, their records stay.
local function bury(id, dead_max)
  redis.call('ZADD', DEAD, NOW_TEXT, id)
  local over = redis.call('ZCARD', DEAD) - dead_max
  if over > 0 then redis.call('ZREMRANGEBYRANK', DEAD, 0, math.min(over, 100) - 1) end
end

local CANCELLED = '["RunCancelled","the run was cancelled"]'

-- Put a run that has been started before back into a stream, ahead of what is new. Its owner is
-- forgotten first, so that whoever held it can write nothing more.
local function requeue(id, retention_ms)
  local key = run_key(id)
  local cancel, crashes, permits, arm = unpack(redis.call('HMGET', key, 'cancel', 'crashes', 'permits', 'arm'))
  if cancel then
    redis.call('HSET', key, 'owner', '')
    finish(id, 'cancelled', CANCELLED, retention_ms)
    return
  end
  -- Somebody else may go on meanwhile.
  if permits then give_back(id, key, permits) end
  deliver(id, key, level_of(arm, crashes, 'resume', key), 'owner', '')
end

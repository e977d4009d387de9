-- How runs that wait for a turn come to it. The words are those of `_backlog`.

-- Whose runs wait in the stream of a level: one tenant's, or several; nil where nobody's do.
local sole, window

local function learn(high, normal, low, wide)
  sole = {high = high or '', normal = normal or '', low = low or ''}
  window = tonumber(wide or '16')
end

local function learn_now()
  if not sole then learn(unpack(redis.call('HMGET', META, 'sole:high', 'sole:normal', 'sole:low', 'window'))) end
end

local function note_sole(level, tenant)
  if sole[level] == tenant then return end
  sole[level] = tenant
  redis.call('HSET', META, 'sole:' .. level, tenant)
end

-- How many entries of a stream nobody holds.
local function undelivered(level)
  local stream, pending = STREAM[level], 0
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  for _, group in ipairs(groups.err and {} or groups) do
    for at = 1, #group, 2 do
      if group[at] == 'pending' then pending = pending + group[at + 1] end
    end
  end
  return redis.call('XLEN', stream) - pending
end

-- Put the runs of a level whose turn is next into a stream; returns how many. Whoever takes them in the
-- same breath gives a table, gets their entries in it, and looks at their records itself.
local function call_up(level, count, into, entries)
  local called, turn = 0, nil
  local due = count > 0 and redis.call('ZPOPMIN', BACKLOG[level], count) or {}
  for at = 1, #due, 2 do
    local id, key = due[at], run_key(due[at])
    turn = due[at + 1]
    -- What is cancelled leaves the backlog; a record that is gone may not have.
    if entries then
      entries[redis.call('XADD', STREAM[into], '*', 'id', id)] = true
      called = called + 1
    elseif ours(redis.pcall('HGET', key, 'state')) == 'queued' then
      deliver(id, key, into)
      called = called + 1
    end
  end
  if turn then redis.call('HSET', TURNS, level, digits(tonumber(turn))) end
  return called
end

-- See to it that something waits in every stream whose backlog holds something.
local function top_up()
  learn_now()
  for _, level in ipairs(FRESH) do
    local waiting = redis.call('ZCARD', BACKLOG[level]) > 0 and undelivered(level)
    if waiting and waiting <= window / 4 then
      call_up(level, window - waiting, level)
      note_sole(level, SEVERAL)
    end
  end
  if not turns_wait() then redis.call('DEL', TURNS) end
end

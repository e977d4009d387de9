-- How a new run is queued: in the stream of its level, or for its turn.

-- How many more runs of any tenant the stream of a level has room for; the last turn that has passed.
local room, passed = {}, {}

-- How many runs of the lane nobody has begun, or goes on with: what a limit on its depth is for.
local function all_waiting()
  local count = redis.call('ZCARD', LIMITED) + redis.call('ZCARD', TIMERS)
  for _, level in ipairs(FRESH) do count = count + redis.call('ZCARD', BACKLOG[level]) end
  for _, level in ipairs(LEVELS) do count = count + undelivered(level) end
  return count
end

-- Whether a run may join others in the stream.
local function joins(level, tenant)
  if not room[level] then
    local waiting = redis.call('ZCARD', BACKLOG[level]) > 0 and window or undelivered(level)
    if waiting == 0 then sole[level] = nil end
    room[level] = window - waiting
  end
  if room[level] <= 0 then return false end
  room[level] = room[level] - 1
  note_sole(level, sole[level] and SEVERAL or tenant)
  return true
end

-- Queue a run that is new, or as good as new: in the stream of its level, or for its turn.
local function place(id, key, level, tenant, ...)
  learn_now()
  if sole[level] == tenant then
    if room[level] then room[level] = room[level] - 1 end
    deliver(id, key, level, ...)
  elseif joins(level, tenant) then
    deliver(id, key, level, ...)
  else
    passed[level] = passed[level] or tonumber(redis.call('HGET', TURNS, level) or '0')
    local turn = redis.call('HINCRBY', TURNS, level .. ':' .. tenant, 1)
    if turn <= passed[level] then
      turn = passed[level] + 1
      redis.call('HSET', TURNS, level .. ':' .. tenant, digits(turn))
    end
    redis.call('ZADD', BACKLOG[level], digits(turn), id)
    redis.call('HSET', key, 'state', 'queued', 'entry', '', ...)
  end
end

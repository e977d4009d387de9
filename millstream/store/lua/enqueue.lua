-- enqueue: accept new runs into one lane, or recognise those it already has.
-- USES _lane _streams _backlog _turns _place _trial _accept
--
-- ARGV epoch   the caller's idea of how many lanes the queue has
-- ARGV ...     per run ten values: id, workflow, version, arguments, priority, delay_ms,
--              timeout_ms, tenant, trace, attributes; an empty string where there is none
--
-- Returns  {-1, lanes, epoch}  the queue was resized, or is about to be; nothing was written
--          per run: 1 accepted, 0 already here with the same workflow and arguments,
--          or the name of the workflow that holds this id: nothing was written for it;
--          2 where the key of the record holds something that is not ours: the same
--          {limit, waiting} the lane holds as many waiting runs as it may: the same
--
-- Safe to send twice: the second time every run is already here. While a version of the workflow is on
-- trial, a run that names none gets one of the two, by a hash of its id, and stays on it.

local epoch, lanes, next_, depth, high, normal, low, wide, tried = unpack(redis.call('HMGET', META,
  'epoch', 'lanes', 'next', 'depth', 'sole:high', 'sole:normal', 'sole:low', 'window', 'trials'))
trials = tried
if next_ or (epoch or '0') ~= ARGV[1] then
  return {-1, tonumber(lanes or '1'), tonumber(epoch or '0')}
end

-- Read every run before the first write: a script that fails half-way is not rolled back.
if (#ARGV - 1) % 10 ~= 0 then error('enqueue: a run is cut short') end
for at = 2, #ARGV, 10 do
  local priority, delay, timeout = unpack(ARGV, at + 4, at + 6)
  if not BACKLOG[priority] or string.find(delay .. timeout, '%D') then
    error('enqueue: malformed run ' .. ARGV[at])
  end
end

learn(high, normal, low, wide)
-- Each lane takes its part of what the queue may hold.
local limit = depth and math.ceil(tonumber(depth) / tonumber(lanes or '1'))
local waiting = limit and all_waiting()

local answers = {}
for at = 2, #ARGV, 10 do
  local id, workflow, version, arguments, priority, delay, timeout, tenant, trace, attributes =
    unpack(ARGV, at, at + 9)
  local key = run_key(id)
  -- A run that has begun anew is still the one that was asked for.
  local known = ours(redis.pcall('HMGET', key, 'workflow', 'args', 'asked'))
  if not known then
    answers[#answers + 1] = 2
  elseif known[1] then
    if known[1] == workflow and (known[3] or known[2]) == arguments then
      answers[#answers + 1] = 0
    else
      answers[#answers + 1] = known[1]
    end
  elseif limit and waiting >= limit then
    answers[#answers + 1] = {limit, waiting}
  else
    accept(id, key, workflow, version, arguments, priority, delay, timeout, tenant, trace, attributes)
    if limit then waiting = waiting + 1 end
    answers[#answers + 1] = 1
  end
end
return answers

-- enqueue: accept new runs into one lane, or recognise those it already has.
-- USES _lane _trial
--
-- ARGV epoch   the caller's idea of how many lanes the queue has
-- ARGV ...     per run ten values: id, workflow, version, arguments, priority, delay_ms,
--              timeout_ms, tenant, trace, attributes; an empty string where there is none
--
-- Returns  {-1, lanes, epoch}  the queue was resized, or is about to be; nothing was written
--          per run: 1 accepted, 0 already here with the same workflow and arguments,
--          or the name of the workflow that holds this id: nothing was written for it;
--          2 where the key of the record holds something that is not ours: the same
--
-- Safe to send twice: the second time every run is already here. While a version of the workflow is on
-- trial, a run that names none gets one of the two, by a hash of its id, and stays on it.

local epoch, lanes, next_, trials = unpack(redis.call('HMGET', META, 'epoch', 'lanes', 'next', 'trials'))
if next_ or (epoch or '0') ~= ARGV[1] then
  return {-1, tonumber(lanes or '1'), tonumber(epoch or '0')}
end

-- Read every run before the first write: a script that fails half-way is not rolled back.
if (#ARGV - 1) % 10 ~= 0 then error('enqueue: a run is cut short') end
for at = 2, #ARGV, 10 do
  local priority, delay, timeout = unpack(ARGV, at + 4, at + 6)
  if not STREAM[priority] or string.find(delay .. timeout, '%D') then
    error('enqueue: malformed run ' .. ARGV[at])
  end
end

local function append(fields, name, value)
  fields[#fields + 1] = name
  fields[#fields + 1] = value
end

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
  else
    local wait = delay ~= '' and tonumber(delay) or 0
    local fields = {'workflow', workflow, 'args', arguments, 'enqueued', NOW_TEXT}
    local arm
    if trials and version == '' then version, arm = drawn(trials, workflow, id) end
    if arm then append(fields, 'arm', arm) end
    if version ~= '' then append(fields, 'version', version) end
    if timeout ~= '' then append(fields, 'timeout', timeout) end
    if tenant ~= '' then append(fields, 'tenant', tenant) end
    if trace ~= '' then append(fields, 'trace', trace) end
    if attributes ~= '' then append(fields, 'attributes', attributes) end
    if priority ~= 'normal' then append(fields, 'priority', priority) end
    if wait > 0 then
      redis.call('HSET', key, 'state', 'scheduled', unpack(fields))
      redis.call('ZADD', TIMERS, digits(NOW + wait), id)
    else
      deliver(id, key, level_of(arm, nil, priority), unpack(fields))
    end
    answers[#answers + 1] = 1
  end
end
return answers

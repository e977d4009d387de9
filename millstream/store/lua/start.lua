-- start: accept child runs into one lane, or recognise those it already has.
-- USES _lane _streams _backlog _turns _place _trial _revive
--
-- ARGV epoch   the caller's idea of how many lanes the queue has; empty: accept none, only recognise
-- ARGV ...     per child ten values: id, workflow, version, arguments, priority, timeout_ms, tenant,
--              trace, parent (queue:lane:id), the attempt of the parent; empty where there is none
--
-- Returns per child: 1 it is here, or its end is in the outbox; 0 it is not here, and not accepted
--
-- A child that has ended tells its parent so again. One that has failed, or was cancelled, is started
-- once more when a later attempt of its parent asks. An id that belongs to another run, or to something
-- that is none, is told to the parent as a failure. Safe to send twice.

local EPOCH = ARGV[1]
if (#ARGV - 1) % 10 ~= 0 then error('start: a child is cut short') end
for at = 2, #ARGV, 10 do
  if not BACKLOG[ARGV[at + 4]] or string.find(ARGV[at + 5] .. ARGV[at + 9], '%D') then
    error('start: malformed child ' .. ARGV[at])
  end
end

local epoch, next_, tried = unpack(redis.call('HMGET', META, 'epoch', 'next', 'trials'))
trials = tried
local accepting = not next_ and (epoch or '0') == EPOCH

local FIELDS = {'workflow', 'args', 'asked', 'parent', 'since', 'state', 'result', 'error', 'attempt', 'priority', 'drop', 'tenant'}

local function tell(id, parent, state, payload)
  post('kind', 'end', 'to', parent, 'id', id, 'state', state, 'payload', payload)
end

local function recognise(at, key, known)
  local id, parent, attempt = ARGV[at], ARGV[at + 8], ARGV[at + 9]
  local same = known[1] == ARGV[at + 1] and (known[3] or known[2]) == ARGV[at + 3]
  if not same or (known[4] and known[4] ~= parent) then
    local whose = same and 'has another parent' or 'is another workflow or has other arguments'
    tell(id, parent, 'failed', '["IdConflict","the run with id ' .. id .. ' ' .. whose .. '"]')
    return
  end
  local later = tonumber(attempt) > tonumber(known[5] or '0')
  redis.call('HSET', key, 'parent', parent, 'since', attempt)
  local state = known[6]
  if state == 'completed' then
    tell(id, parent, state, known[7])
  elseif state == 'failed' or state == 'cancelled' then
    if later and known[5] then revive(id, key, known[9], known[10], known[11], known[12]) else tell(id, parent, state, known[8]) end
  end
end

local function accept(at, key)
  local fields = {'workflow', ARGV[at + 1], 'args', ARGV[at + 3], 'enqueued', NOW_TEXT,
    'parent', ARGV[at + 8], 'since', ARGV[at + 9]}
  local function append(name, value)
    if value ~= '' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  local version, arm = ARGV[at + 2], nil
  if trials and version == '' then version, arm = drawn(ARGV[at + 1], ARGV[at]) end
  append('version', version)
  append('arm', arm or '')
  append('timeout', ARGV[at + 5])
  append('tenant', ARGV[at + 6])
  append('trace', ARGV[at + 7])
  if ARGV[at + 4] ~= 'normal' then append('priority', ARGV[at + 4]) end
  place(ARGV[at], key, arm == 'canary' and arm or ARGV[at + 4], ARGV[at + 6], unpack(fields))
end

local answers = {}
for at = 2, #ARGV, 10 do
  local key = run_key(ARGV[at])
  local known = ours(redis.pcall('HMGET', key, unpack(FIELDS)))
  answers[#answers + 1] = 1
  if not known then
    tell(ARGV[at], ARGV[at + 8], 'failed', '["KeyOccupied","Redis holds something else where its record should stand"]')
  elseif known[1] then
    recognise(at, key, known)
  elseif accepting then
    accept(at, key)
  else
    answers[#answers] = 0
  end
end
return answers

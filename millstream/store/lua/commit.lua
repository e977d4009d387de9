-- commit: everything a worker wants written in one turn, and the work it takes next.
-- USES _lane
--
-- ARGV token         the process that writes; must own every run it writes to
-- ARGV want_high     how many new deliveries to take, at most: the sum of the three is the
-- ARGV want_normal   limit, the parts are how the levels share it; what one level does not
-- ARGV want_low      use goes to the others
-- ARGV want_suspect  1 when a run that is suspected of killing workers may be among them
-- ARGV max_records   records a journal may hold
-- ARGV max_bytes     bytes a journal may hold
-- ARGV max_events    events kept for whoever watches a run
-- ARGV dead_max      ids the dead-letter index may hold
-- ARGV sequence      grows with everything that the process sends to this lane; 0: not counted
-- ARGV ...           items, each an operation and its values:
--   J id fence version n (key record){n}        journal
--   E id fence version key record data          journal and publish to whoever watches
--   D id fence version level entry retention_ms state payload dead drop   settle
--   R id fence version level entry retention_ms pause_ms n error key{n}   try again later, without these records
--   P id fence version level entry retention_ms due_ms ran_ms      park until a time
--   L id fence version level entry retention_ms                    release untouched
--   U id fence version level entry retention_ms pause_ms           refuse: another worker may know it
--   A level entry                               adopt a delivery that the blocking read brought
--   H level entry retention_ms                  hand back a delivery that was never adopted
--
-- Returns {now_ms, verdicts, taken}; nil, and nothing is done, when this was held up on its way
-- until a later commit of the process had come: it has been sent again since
--   verdicts  one digit an item: 1 written, now or earlier under this same fence
--                                0 fenced off: somebody else holds the run, nothing was written
--                                2 written, and somebody asked for the run to be cancelled
--                                3 the journal is full, nothing was written
--   taken     per delivery: id, fence, level, entry, workflow, version, arguments, attempt, base,
--             crashes, ran_ms, timeout_ms, tenant, enqueued_ms, records, refusals
--
-- Every item is safe to send twice. A take is not: after a lost reply ask for nothing, compare
-- what is pending with what is held (holdings), and adopt the difference. One refused item never spoils the others.

local TOKEN = ARGV[1]
local MAX_RECORDS, MAX_BYTES, MAX_EVENTS, DEAD_MAX =
  tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local SEQUENCE = tonumber(ARGV[10])
local at = 11

local function following(count)
  local first = at
  at = at + count
  if at - 1 > #ARGV then error('commit: an item is cut short') end
  return unpack(ARGV, first, at - 1)
end

-- Read every item before the first write: a script that fails half-way is not rolled back.
local SHAPE = {J = 4, E = 6, D = 10, R = 8, P = 8, L = 6, U = 7, A = 2, H = 3}
-- Where the numbers of an item stand, and its level, which an entry follows.
local NUMBERS = {J = {5}, E = {}, D = {7}, R = {7, 8, 9}, P = {7, 8, 9}, L = {7}, U = {7, 8}, A = {}, H = {4}}
local LEVEL = {D = 5, R = 5, P = 5, L = 5, U = 5, A = 2, H = 2}
local FINAL = {completed = true, failed = true, cancelled = true}

local function check(item)
  local op = item[1]
  local level, sound = LEVEL[op], true
  for _, index in ipairs(NUMBERS[op]) do sound = sound and string.find(item[index], '^%d+$') end
  if level then
    sound = sound and STREAM[item[level]] and string.find(item[level + 1], '^%d+%-%d+$')
  end
  if not sound or (op == 'D' and not FINAL[item[8]]) then error('commit: malformed ' .. op) end
end

local items = {}
while at <= #ARGV do
  local op = following(1)
  if not SHAPE[op] then error('commit: unknown operation ' .. op) end
  local item = {op, following(SHAPE[op])}
  check(item)
  if op == 'J' then
    item.pairs = {following(2 * tonumber(item[5]))}
  elseif op == 'R' then
    local count = tonumber(item[9])
    item.error = following(1)
    item.drop = count > 0 and {following(count)} or {}
  end
  items[#items + 1] = item
end

if SEQUENCE > 0 then
  -- Stands beside what the process says of itself, and goes with it.
  local field = 'sequence:' .. TOKEN
  if SEQUENCE <= tonumber(redis.call('HGET', AGENTS, field) or '0') then return false end
  redis.call('HSET', AGENTS, field, ARGV[10])
end

local function held(id, fence)
  local run = redis.call('HMGET', run_key(id), 'state', 'fence', 'owner', 'cancel')
  local mine = run[2] == fence and run[3] == TOKEN
  return mine, run[1], run[4]
end

local function pin(id, version)
  if version ~= '' then redis.call('HSETNX', run_key(id), 'version', version) end
end

local function journal(id, pairs_)
  local key, log = run_key(id), journal_key(id)
  local records, bytes = 0, 0
  for index = 1, #pairs_, 2 do
    -- What is replaced does not count: an intent by its result, a record by its repetition.
    local replaced = redis.call('HSTRLEN', log, pairs_[index])
    if replaced == 0 then records = records + 1 end
    bytes = bytes + #pairs_[index + 1] - replaced
  end
  if records > 0 and redis.call('HLEN', log) + records > MAX_RECORDS then return '3' end
  if bytes > 0 and tonumber(redis.call('HGET', key, 'bytes') or '0') + bytes > MAX_BYTES then return '3' end
  for first = 1, #pairs_, 1000 do
    redis.call('HSET', log, unpack(pairs_, first, math.min(first + 999, #pairs_)))
  end
  redis.call('HINCRBY', key, 'bytes', bytes)
  return '1'
end

local apply = {}

function apply.J(item)
  local _, id, fence, version = unpack(item)
  local mine, state, cancel = held(id, fence)
  if not mine or state ~= 'running' then return '0' end
  pin(id, version)
  local verdict = journal(id, item.pairs)
  return verdict == '1' and cancel and '2' or verdict
end

function apply.E(item)
  local _, id, fence, version, key, record, data = unpack(item)
  local mine, state, cancel = held(id, fence)
  if not mine or state ~= 'running' then return '0' end
  pin(id, version)
  if redis.call('HEXISTS', journal_key(id), key) == 0 then
    local verdict = journal(id, {key, record})
    if verdict ~= '1' then return verdict end
    redis.call('XADD', events_key(id), 'MAXLEN', '~', MAX_EVENTS, '*', 'data', data)
  end
  return cancel and '2' or '1'
end

-- The end of a delivery, whatever it is. Said twice under one fence it is the same end: the
-- repetition only makes sure that the delivery is gone. What would be put aside while somebody
-- waits for it to stop, stops: nobody would tell it later.
local function ending(item, write)
  local op, id, fence, version, level, entry, retention_ms = unpack(item)
  local mine, state, cancel = held(id, fence)
  if not mine then return '0' end
  if state == 'running' then
    pin(id, version)
    if cancel and op ~= 'D' then
      finish(id, 'cancelled', CANCELLED, retention_ms)
    else
      write(id, retention_ms)
    end
  end
  acknowledge(level, entry)
  return '1'
end

function apply.D(item)
  return ending(item, function(id, retention_ms)
    local state, payload, dead, drop = unpack(item, 8, 11)
    finish(id, state, payload, retention_ms, drop ~= '' and {'drop', drop} or nil)
    if dead == '1' then bury(id, DEAD_MAX) end
  end)
end

function apply.R(item)
  return ending(item, function(id)
    local key = run_key(id)
    redis.call('HSET', key, 'state', 'scheduled', 'error', item.error)
    redis.call('HINCRBY', key, 'attempt', 1)
    redis.call('HDEL', key, 'ran')
    if #item.drop > 0 then redis.call('HDEL', journal_key(id), unpack(item.drop)) end
    redis.call('ZADD', TIMERS, digits(NOW + tonumber(item[8])), id)
  end)
end

function apply.P(item)
  return ending(item, function(id)
    redis.call('HSET', run_key(id), 'state', 'parked', 'ran', item[9])
    redis.call('ZADD', PARKED, item[8], id)
  end)
end

function apply.L(item)
  return ending(item, requeue)
end

function apply.U(item)
  return ending(item, function(id)
    -- Refusals count in a row: by whoever took it last before, and now.
    local key, fence = run_key(id), tonumber(item[3])
    local last, count = unpack(redis.call('HMGET', key, 'refused', 'refusals'))
    count = tonumber(last or '0') == fence - 1 and tonumber(count or '0') or 0
    redis.call('HSET', key, 'state', 'scheduled', 'refusals', digits(count + 1), 'refused', digits(fence))
    redis.call('ZADD', TIMERS, digits(NOW + tonumber(item[8])), id)
  end)
end

local taken = {}

-- Begin to hold a run: the fence grows, and from here on only this process may write to it.
local function take(level, entry, id, again)
  local key = run_key(id)
  local run = redis.call('HMGET', key, 'state', 'fence', 'owner', 'workflow', 'version', 'args',
    'attempt', 'base', 'crashes', 'ran', 'timeout', 'tenant', 'enqueued', 'refusals', 'started', 'entry')
  local state = run[1]
  local mine = again and state == 'running' and run[3] == TOKEN
  if run[16] ~= entry or (state ~= 'queued' and not mine) then
    -- Cancelled while it waited, or expired, or here twice: the delivery means nothing any more.
    acknowledge(level, entry)
    return
  end
  local fence = tonumber(run[2] or '0') + 1
  redis.call('HSET', key, 'state', 'running', 'owner', TOKEN, 'fence', digits(fence),
    'started', run[15] or digits(NOW))
  local records = fence > 1 and redis.call('HLEN', journal_key(id)) or 0
  taken[#taken + 1] = {
    id, fence, level, entry, run[4], run[5] or '', run[6], run[7], run[8] or '0', run[9] or '0',
    run[10] or '0', run[11] or '', run[12] or '', run[13], records, run[14] or '0',
  }
end

-- The run id of an entry that is pending for this process; nil when it is not, or no more.
local function pending_here(level, entry)
  local pending = redis.call('XPENDING', STREAM[level], GROUP, entry, entry, 1)[1]
  if not pending or pending[2] ~= TOKEN then return nil end
  local found = redis.call('XRANGE', STREAM[level], entry, entry)[1]
  if not found then
    acknowledge(level, entry)
    return nil
  end
  return found[2][2]
end

function apply.A(item)
  local _, level, entry = unpack(item)
  local id = pending_here(level, entry)
  if not id then return '0' end
  take(level, entry, id, true)
  return '1'
end

function apply.H(item)
  local _, level, entry, retention_ms = unpack(item)
  local id = pending_here(level, entry)
  if not id then return '0' end
  local run = redis.call('HMGET', run_key(id), 'state', 'owner', 'entry')
  if run[3] == entry and (run[1] == 'queued' or (run[1] == 'running' and run[2] == TOKEN)) then
    requeue(id, retention_ms)
  end
  acknowledge(level, entry)
  return '1'
end

local verdicts = {}
for index, item in ipairs(items) do verdicts[index] = apply[item[1]](item) end

-- What was begun comes first; new runs share the rest.
local function read(level, count)
  if count <= 0 then return 0 end
  local reply = redis.call('XREADGROUP', 'GROUP', GROUP, TOKEN, 'COUNT', count, 'STREAMS', STREAM[level], '>')
  if not reply then return 0 end
  local entries = reply[1][2]
  for _, found in ipairs(entries) do
    if found[2] then take(level, found[1], found[2][2], false) else acknowledge(level, found[1]) end
  end
  return #entries
end

local high, normal, low = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local want = high + normal + low
if want > 0 then
  if ARGV[5] == '1' then want = want - read('suspect', 1) end
  want = want - read('resume', want)
  want = want - read('high', math.min(high, want))
  want = want - read('normal', math.min(normal, want))
  want = want - read('low', math.min(low, want))
  want = want - read('high', want)
  want = want - read('normal', want)
  read('low', want)
end

flush_acknowledged()
return {NOW, table.concat(verdicts), taken}

-- commit: everything a worker wants written in one turn, and the work it takes next.
-- USES _lane _streams _moves _backlog _turns _trial
--
-- ARGV token         the process that writes; must own every run it writes to
-- ARGV want_high     how many new deliveries to take, at most: the sum of the three is the
-- ARGV want_normal   limit, the parts are how the levels share it; what one level does not
-- ARGV want_low      use goes to the others
-- ARGV want_apart    1 when a run that is suspected of killing workers may be among them, 2 when the
--                    process knows what is on trial; 3: both
-- ARGV max_records   records a journal may hold
-- ARGV max_bytes     bytes a journal may hold
-- ARGV max_events    events kept for whoever watches a run
-- ARGV dead_max      ids the dead-letter index may hold
-- ARGV sequence      grows with everything that the process sends to this lane; 0: not counted
-- ARGV ...           items, each an operation and its values:
--   J id fence version n (key record){n}        journal
--   E id fence version key record data          journal and publish to whoever watches
--   S id fence number when kind data            publish what is in no journal. What is said under one
--     fence is numbered, and each number is said once. `when` names verdicts: it is said if the item
--     before it got one of them, and answers with that one's verdict; empty: always
--   D id fence version level entry retention_ms state payload dead drop   settle
--   R id fence version level entry retention_ms pause_ms n error key{n}   try again later, without these records
--   N id fence version level entry retention_ms arguments           begin anew with these arguments
--   C id fence version key record child queue start   journal, and have a child run started
--   T id fence version key record task                journal, and note what another agent does for the
--     step, so that it is told when the run ends before; empty: it does nothing any more
--   P id fence version level entry retention_ms due_ms ran_ms heard awaits   park until a time, or
--     until one of the messages that `awaits` names, a line each, arrives; queued again at once when
--     one has arrived since message number `heard`
--   W id fence version key otherwise name open done rest   look for a message: the oldest of this
--     name is taken, and its record is `done`, the message, `rest`. When there is none the record
--     becomes `otherwise`, unless that is empty. A record that does not begin with `open` stays.
--   L id fence version level entry retention_ms                    release untouched
--   U id fence version level entry retention_ms pause_ms           refuse: another worker may know it
--   K id fence version level entry n (limit most period_ms){n}      ask to go on under limits: so many runs
--     at a time, or so many that begin in a period. One that may not leaves its worker, and comes back
--   F level after                               hold what the blocking read in front of this has brought:
--     the first delivery behind the entry `after` that is not held yet
--   A level entry                               adopt a delivery that the blocking read brought
--   H level entry retention_ms                  hand back a delivery that was never adopted
--
-- Returns {now_ms, verdicts, taken, posted}; nil, and nothing is done, when this was held up on its way
-- until a later commit of the process had come: it has been sent again since
--   verdicts  one digit an item: 1 written, now or earlier under this same fence
--                                0 fenced off: somebody else holds the run, nothing was written
--                                2 written, and somebody asked for the run to be cancelled
--                                3 the journal is full, nothing was written
--                                4 what was looked for stands in the journal
--                                5 a key of the run holds something that is not ours, nothing was written
--                                6 the run has to wait for its limits; its delivery is over
--                                7 what was looked for is sealed, and the record would not be: nothing was written
--   taken     per delivery: id, fence, level, entry, attempt, workflow, version, arguments,
--             enqueued_ms, timeout_ms, tenant; and of a run that has a past: base, crashes, ran_ms,
--             refusals, records, received,
--             generation; and of one that is traced, after its past: trace
--   posted    how much was put into the outbox just now
--
-- Every item is safe to send twice. A take is not: after a lost reply ask for nothing, compare
-- what is pending with what is held (holdings), and adopt the difference. One refused item never spoils the others.

local TOKEN = ARGV[1]
local MAX_RECORDS, MAX_BYTES, MAX_EVENTS, DEAD_MAX =
  tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local SEQUENCE = tonumber(ARGV[10])

-- Read every item before the first write: a script that fails half-way is not rolled back. Items are
-- not copied: what follows reads them where they stand. An item begins at `at`, with its operation.
local SHAPE = {J = 4, E = 6, S = 6, D = 10, R = 8, P = 10, W = 9, N = 7, C = 8, T = 6, L = 6, U = 7, K = 6, F = 2, A = 2, H = 3}
-- Where the numbers of an item stand, or its only one, and its level, which an entry follows.
local NUMBERS = {J = 4, S = 3, D = 6, R = {6, 7, 8}, P = {6, 7, 8, 9}, N = 6, L = 6, U = {6, 7}, K = 6, H = 3}
local LEVEL = {D = 4, R = 4, P = 4, N = 4, L = 4, U = 4, K = 4, F = 1, A = 1, H = 1}
local FINAL = {completed = true, failed = true, cancelled = true}

-- How many arguments an item takes, with its operation: some name how many more there are.
local function size_of(at)
  local op = ARGV[at]
  if not SHAPE[op] then error('commit: unknown operation ' .. op) end
  local size = 1 + SHAPE[op]
  if op == 'J' then size = size + 2 * (tonumber(ARGV[at + 4] or '') or 0) end
  if op == 'R' then size = size + 1 + (tonumber(ARGV[at + 8] or '') or 0) end
  if op == 'K' then size = size + 3 * (tonumber(ARGV[at + 6] or '') or 0) end
  if at + size - 1 > #ARGV then error('commit: an item is cut short') end
  return size
end

local function check(at)
  local op, sound = ARGV[at], true
  local numbers = NUMBERS[op]
  if type(numbers) == 'number' then
    sound = string.find(ARGV[at + numbers], '^%d+$')
  else
    for _, offset in ipairs(numbers or {}) do sound = sound and string.find(ARGV[at + offset], '^%d+$') end
  end
  local level = LEVEL[op] and at + LEVEL[op]
  if level then sound = sound and STREAM[ARGV[level]] and string.find(ARGV[level + 1], '^%d+%-%d+$') end
  if not sound or (op == 'D' and not FINAL[ARGV[at + 7]]) then error('commit: malformed ' .. op) end
end

local starts = {}
local at = 11
while at <= #ARGV do
  local size = size_of(at)
  check(at)
  starts[#starts + 1] = at
  at = at + size
end

if SEQUENCE > 0 then
  -- Stands beside what the process says of itself, and goes with it.
  local field = 'sequence:' .. TOKEN
  if SEQUENCE <= tonumber(redis.call('HGET', AGENTS, field) or '0') then return false end
  redis.call('HSET', AGENTS, field, ARGV[10])
end

-- Whether this process holds the run of an item under the fence that the item names; the key of its
-- record, and what is asked of a record before it is written to.
local function held(at)
  local key = run_key(ARGV[at + 1])
  local run = ours(redis.pcall('HMGET', key, 'state', 'fence', 'owner', 'cancel', 'waiters', 'bytes', 'said', 'error',
    'received', 'parent', 'permits', 'arm', 'version')) or {}
  local mine = run[2] == ARGV[at + 2] and run[3] == TOKEN
  return mine, key, run
end

-- The version that a run stays on, once it has written anything.
local function pinned(at, run)
  local version = ARGV[at + 3]
  return version ~= '' and not run[13] and version or nil
end

-- Write the records at `first`, and publish the event that comes with one. Whatever may be refused
-- comes before the first write.
local function journal(id, key, run, first, count, version, event)
  local log = journal_key(id)
  local before = tonumber(run[6] or '0')
  local records, bytes = 0, before
  if count == 1 and not event and before > 0 and before + #ARGV[first + 1] <= math.min(MAX_BYTES, MAX_RECORDS) then
    -- Far from every bound: what is new is found out by writing it.
    local new = ours(redis.pcall('HSETNX', log, ARGV[first], ARGV[first + 1]))
    if not new then return '5' end
    if new == 1 then
      bytes, count = before + #ARGV[first + 1], 0
    end
  end
  for index = first, first + 2 * (count - 1), 2 do
    -- What is replaced does not count: an intent by its result, a record by its repetition.
    local replaced = before > 0 and ours(redis.pcall('HSTRLEN', log, ARGV[index])) or 0
    if replaced == 0 then records = records + 1 end
    bytes = bytes + #ARGV[index + 1] - replaced
  end
  if bytes > MAX_BYTES and bytes > before then return '3' end
  -- No record is empty: as long as there are fewer bytes than records allowed, nobody has to count.
  if records > 0 and bytes > MAX_RECORDS and redis.call('HLEN', log) + records > MAX_RECORDS then return '3' end
  if event and not ours(redis.pcall('XADD', events_key(id), 'MAXLEN', '~', MAX_EVENTS, '*', 'data', event)) then
    return '5'
  end
  for index = first, first + 2 * (count - 1), 1000 do
    if not ours(redis.pcall('HSET', log, unpack(ARGV, index, math.min(index + 999, first + 2 * count - 1)))) then
      return '5'
    end
  end
  if version then
    redis.call('HSET', key, 'bytes', digits(bytes), 'version', version)
  else
    redis.call('HSET', key, 'bytes', digits(bytes))
  end
  return run[4] and '2' or '1'
end

local apply, verdicts = {}, {}

function apply.J(at)
  local mine, key, run = held(at)
  if not mine or run[1] ~= 'running' then return '0' end
  return journal(ARGV[at + 1], key, run, at + 5, tonumber(ARGV[at + 4]), pinned(at, run))
end

-- The same for a final state, written out: it is what most commits are made of.
function apply.D(at)
  local mine, key, run = held(at)
  if not mine then return '0' end
  if run[1] == 'running' then
    local id, state, payload, retention_ms = ARGV[at + 1], ARGV[at + 7], ARGV[at + 8], ARGV[at + 6]
    local version = pinned(at, run)
    if ARGV[at + 10] ~= '' then redis.call('HSET', key, 'drop', ARGV[at + 10]) end
    if version then
      conclude(id, key, state, payload, retention_ms, run, 5, 'version', version)
    else
      conclude(id, key, state, payload, retention_ms, run, 5)
    end
    if ARGV[at + 9] == '1' then bury(id, DEAD_MAX) end
  end
  acknowledge(ARGV[at + 4], ARGV[at + 5])
  return '1'
end

local taken = {}
-- Entries of runs that this commit has called up: it takes them too, so their records name none yet.
local called_up = {}

-- Begin to hold a run: the fence grows, and from here on only this process may write to it. What is
-- read of the record becomes the row that is returned.
local function take(level, entry, id, again)
  local key = run_key(id)
  local row = ours(redis.pcall('HMGET', key, 'state', 'fence', 'owner', 'entry', 'attempt', 'workflow', 'version',
    'args', 'enqueued', 'timeout', 'tenant', 'trace')) or {}
  local state, before, owner, trace = row[1], row[2], row[3], row[12]
  row[12] = nil
  local mine = again and state == 'running' and owner == TOKEN
  local called = called_up[entry] and row[4] == ''
  if (row[4] ~= entry and not called) or (state ~= 'queued' and not mine) then
    -- Cancelled while it waited, or expired, or here twice: the delivery means nothing any more.
    acknowledge(level, entry)
    return
  end
  row[1], row[2], row[3], row[4] = id, before and tonumber(before) + 1 or 1, level, entry
  if before or row[5] then
    local base, crashes, ran, refusals, started, received, generation =
      unpack(redis.call('HMGET', key, 'base', 'crashes', 'ran', 'refusals', 'started', 'received', 'generation'))
    row[12], row[13], row[14], row[15] = base or '0', crashes or '0', ran or '0', refusals or '0'
    -- A journal that is not ours must not pass for an empty one: who reads it finds out.
    row[16] = before and (ours(redis.pcall('HLEN', journal_key(id))) or 1) or 0
    row[17], row[18] = received and 1 or 0, generation or '0'
    redis.call('HSET', key, 'state', 'running', 'owner', TOKEN, 'fence', digits(row[2]), 'started', started or NOW_TEXT,
      'entry', entry)
  elseif called then
    redis.call('HSET', key, 'state', 'running', 'owner', TOKEN, 'fence', '1', 'started', NOW_TEXT, 'entry', entry)
  else
    redis.call('HSET', key, 'state', 'running', 'owner', TOKEN, 'fence', '1', 'started', NOW_TEXT)
  end
  if trace then
    -- One that has no past yet is given an empty one, so that the trace stands at its end.
    if not row[12] then row[12], row[13], row[14], row[15], row[16], row[17], row[18] = '0', '0', '0', '0', 0, 0, '0' end
    row[19] = trace
  end
  taken[#taken + 1] = row
end

-- Whether something that the blocking read brought has left the stream with this commit.
local brought = false

-- The run id of an entry that is pending for this process; nil when it is not, or no more.
local function pending_here(level, entry)
  local pending = redis.call('XPENDING', STREAM[level], GROUP, entry, entry, 1)[1]
  if not pending or pending[2] ~= TOKEN then return nil end
  local found = redis.call('XRANGE', STREAM[level], entry, entry)[1]
  brought = true
  if not found then
    acknowledge(level, entry)
    return nil
  end
  return found[2][2]
end

function apply.F(at)
  local level = ARGV[at + 1]
  local pending = redis.call('XPENDING', STREAM[level], GROUP, '(' .. ARGV[at + 2], '+', 1, TOKEN)[1]
  local id = pending and pending_here(level, pending[1])
  if not id then return '0' end
  local run = ours(redis.pcall('HMGET', run_key(id), 'state', 'owner', 'entry')) or {}
  -- A commit was quicker, and has told the process of it.
  if run[1] == 'running' and run[2] == TOKEN and run[3] == pending[1] then return '0' end
  take(level, pending[1], id, false)
  return '1'
end

function apply.A(at)
  local level, entry = ARGV[at + 1], ARGV[at + 2]
  local id = pending_here(level, entry)
  if not id then return '0' end
  take(level, entry, id, true)
  return '1'
end

-- What few commits have. A script is made anew by every call, and to make all of this takes longer than
-- to end a run.
local function make_the_rest()
  function apply.E(at)
    local mine, key, run = held(at)
    if not mine or run[1] ~= 'running' then return '0' end
    local id = ARGV[at + 1]
    local said = ours(redis.pcall('HEXISTS', journal_key(id), ARGV[at + 4]))
    if not said then return '5' end
    -- Said already only when it was with this very record: a question takes the place of an intent.
    if said == 0 or redis.call('HGET', journal_key(id), ARGV[at + 4]) ~= ARGV[at + 5] then
      local verdict = journal(id, key, run, at + 4, 1, pinned(at, run), ARGV[at + 6])
      if verdict == '3' or verdict == '5' then return verdict end
      if not run[7] then redis.call('HSET', key, 'said', '1') end
    end
    return run[4] and '2' or '1'
  end

  function apply.S(at)
    local before, when = verdicts[#verdicts], ARGV[at + 4]
    if when ~= '' and not (before and string.find(when, before, 1, true)) then return before or '0' end
    local mine, key, run = held(at)
    if not mine or run[1] ~= 'running' then return when ~= '' and before or '0' end
    local id, fence, number = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    local last = string.match(redis.call('HGET', key, 'told') or '', '^' .. fence .. ':(%d+)$')
    if not last or tonumber(last) < tonumber(number) then
      if not ours(redis.pcall('XADD', events_key(id), 'MAXLEN', '~', MAX_EVENTS, '*',
        'data', ARGV[at + 6], 'kind', ARGV[at + 5])) then
        return '5'
      end
      redis.call('HSET', key, 'told', fence .. ':' .. number)
      if not run[7] then redis.call('HSET', key, 'said', '1') end
    end
    if when ~= '' then return before end
    return run[4] and '2' or '1'
  end

  -- Take the oldest message of a name away; `numbers` are those that stand under the name.
  local function consume(box, name, numbers, number, payload)
    local rest = string.match(numbers, ' (.*)$')
    if rest then redis.call('HSET', box, '~' .. name, rest) else redis.call('HDEL', box, '~' .. name) end
    redis.call('HDEL', box, number)
    -- The end of a child takes nobody's room: there are no more of them than open children.
    if string.sub(name, 1, 2) == 'c:' then
      redis.call('HINCRBY', box, '#ends', -1)
      return
    end
    redis.call('HINCRBY', box, '#count', -1)
    redis.call('HINCRBY', box, '#bytes', -#payload)
  end

  function apply.W(at)
    local mine, key, run = held(at)
    if not mine or run[1] ~= 'running' then return '0' end
    local id, step, name, open = ARGV[at + 1], ARGV[at + 4], ARGV[at + 6], ARGV[at + 7]
    local stored = ours(redis.pcall('HGET', journal_key(id), step))
    if stored == nil then return '5' end
    if stored and string.sub(stored, 1, #open) ~= open then return '4' end
    local box = received_key(id)
    local numbers = run[9] and ours(redis.pcall('HGET', box, '~' .. name))
    if numbers == nil then return '5' end
    if not numbers then
      if ARGV[at + 5] == '' then return run[4] and '2' or '1' end
      return journal(id, key, run, at + 4, 1, pinned(at, run))
    end
    local number = string.match(numbers, '^%d+')
    local payload = redis.call('HGET', box, number)
    -- How a sealed value begins, also behind the state of a child: see `millstream.store.sealing`.
    if string.sub(ARGV[at + 8], 1, 3) ~= '[5,' and string.find(string.sub(payload, 1, 40), '"\\u0073eal', 1, true) then
      return '7'
    end
    ARGV[at + 5] = ARGV[at + 8] .. payload .. ARGV[at + 9]
    local verdict = journal(id, key, run, at + 4, 1, pinned(at, run))
    if verdict == '3' or verdict == '5' then return verdict end
    consume(box, name, numbers, number, payload)
    return '4'
  end

  -- The end of a delivery, whatever it is. Said twice under one fence it is the same end: the
  -- repetition only makes sure that the delivery is gone. What would be put aside while somebody
  -- waits for it to stop, stops: nobody would tell it later.
  local function ending(at, write)
    local mine, key, run = held(at)
    if not mine then return '0' end
    if run[1] == 'running' then
      local id, version, cancel = ARGV[at + 1], pinned(at, run), run[4]
      if version then redis.call('HSET', key, 'version', version) end
      if cancel then
        conclude(id, key, 'cancelled', CANCELLED, ARGV[at + 6], run, 5)
      else
        if run[11] then give_back(id, key, run[11]) end
        write(id, key, run[9])
      end
    end
    acknowledge(ARGV[at + 4], ARGV[at + 5])
    return '1'
  end

  function apply.R(at)
    return ending(at, function(id, key)
      local dropped = tonumber(ARGV[at + 8])
      local attempt = tonumber(redis.call('HGET', key, 'attempt') or '1')
      redis.call('HSET', key, 'state', 'scheduled', 'error', ARGV[at + 9], 'attempt', digits(attempt + 1))
      redis.call('HDEL', key, 'ran')
      for first = at + 10, at + 9 + dropped, 1000 do
        ours(redis.pcall('HDEL', journal_key(id), unpack(ARGV, first, math.min(first + 999, at + 9 + dropped))))
      end
      redis.call('ZADD', TIMERS, digits(NOW + tonumber(ARGV[at + 7])), id)
    end)
  end

  function apply.C(at)
    local mine, key, run = held(at)
    if not mine or run[1] ~= 'running' then return '0' end
    local id, child, box = ARGV[at + 1], ARGV[at + 6], received_key(ARGV[at + 1])
    local known, fits = ours(redis.pcall('HEXISTS', journal_key(id), ARGV[at + 4])), ours(redis.pcall('HLEN', box))
    if not known or not fits then return '5' end
    if known == 1 then return run[4] and '2' or '1' end
    local verdict = journal(id, key, run, at + 4, 1, pinned(at, run))
    if verdict == '3' or verdict == '5' then return verdict end
    redis.call('HSET', box, '+' .. child, ARGV[at + 7])
    redis.call('HINCRBY', box, '#open', 1)
    if not run[9] then redis.call('HSET', key, 'received', '1') end
    post('kind', 'start', 'run', id, 'queue', ARGV[at + 7], 'id', child, 'data', ARGV[at + 8])
    return verdict
  end

  function apply.T(at)
    local mine, key, run = held(at)
    if not mine or run[1] ~= 'running' then return '0' end
    local task, box, field = ARGV[at + 6], received_key(ARGV[at + 1]), '!' .. ARGV[at + 4]
    if not ours(redis.pcall('HLEN', box)) then return '5' end
    local verdict = journal(ARGV[at + 1], key, run, at + 4, 1, pinned(at, run))
    if verdict == '3' or verdict == '5' then return verdict end
    if task ~= '' then
      if redis.call('HSET', box, field, task) == 1 then redis.call('HINCRBY', box, '#tasks', 1) end
      if run[9] ~= '2' then redis.call('HSET', key, 'received', '2') end
    elseif redis.call('HDEL', box, field) == 1 and redis.call('HINCRBY', box, '#tasks', -1) == 0 then
      redis.call('HDEL', box, '#tasks')
    end
    return verdict
  end

  -- Whether a message that is awaited has arrived after the one with the number `heard`.
  local function arrived(id, heard, awaits)
    local box = received_key(id)
    if tonumber(ours(redis.pcall('HGET', box, '#')) or '0') <= heard then return false end
    for name in string.gmatch(awaits, '[^\n]+') do
      local numbers
      if name == 'c' then
        -- All children are awaited under one name; one that waits must be among them.
        local waiting, last = unpack(redis.call('HMGET', box, '#ends', '#end'))
        numbers = tonumber(waiting or '0') > 0 and last
      else
        numbers = redis.call('HGET', box, '~' .. name)
      end
      if numbers and tonumber(string.match(numbers, '%d+$')) > heard then return true end
    end
    return false
  end

  function apply.P(at)
    return ending(at, function(id, key, received)
      local awaits = ARGV[at + 10]
      redis.call('HSET', key, 'state', 'parked', 'ran', ARGV[at + 8], 'awaits', awaits)
      if received and arrived(id, tonumber(ARGV[at + 9]), awaits) then
        requeue(id, ARGV[at + 6])
      else
        redis.call('ZADD', PARKED, ARGV[at + 7], id)
      end
    end)
  end

  -- Its signals and their ids are kept. No child is open: who has not waited for one cannot begin anew.
  function apply.N(at)
    return ending(at, function(id, key)
      local workflow, asked, before, generation = unpack(redis.call('HMGET', key, 'workflow', 'asked', 'args', 'generation'))
      redis.call('HSET', key, 'args', ARGV[at + 7], 'asked', asked or before,
        'generation', digits(tonumber(generation or '0') + 1))
      redis.call('HDEL', key, 'version', 'arm', 'attempt', 'base', 'crashes', 'mark', 'refusals', 'refused', 'ran', 'bytes',
        'drop', 'error', 'paid')
      redis.call('DEL', journal_key(id), spilled_key(id))
      -- It is new, so a trial draws for it as for any other.
      local version, arm = drawn(workflow, id)
      if arm then redis.call('HSET', key, 'version', version, 'arm', arm) end
      requeue(id, ARGV[at + 6])
    end)
  end

  function apply.L(at)
    return ending(at, function(id) requeue(id, ARGV[at + 6]) end)
  end

  function apply.U(at)
    return ending(at, function(id, key)
      -- Refusals count in a row: by whoever took it last before, and now.
      local fence = tonumber(ARGV[at + 2])
      local last, count = unpack(redis.call('HMGET', key, 'refused', 'refusals'))
      count = tonumber(last or '0') == fence - 1 and tonumber(count or '0') or 0
      redis.call('HSET', key, 'state', 'scheduled', 'refusals', digits(count + 1), 'refused', digits(fence))
      redis.call('ZADD', TIMERS, digits(NOW + tonumber(ARGV[at + 7])), id)
    end)
  end

  -- How long a run has to wait until its turn comes under a rate. It is counted now, and comes back at its
  -- own time: so many may begin in a period, and those that have to wait begin evenly spread.
  local function rate_wait(limit, most, period)
    local place = PREFIX .. 'rate:' .. limit
    local before = ours(redis.pcall('GET', place))
    -- What somebody else keeps there is left alone, and limits nothing.
    if before == nil then return 0 end
    local full = math.max(tonumber(before or '0') or 0, NOW) + period / most
    -- To the microsecond: of many a second, each is charged less than a millisecond.
    redis.call('SET', place, string.format('%.3f', full), 'PX', digits(full - NOW + 1000))
    return math.max(0, full - NOW - period)
  end

  -- Take a run out of its worker's hands: it will come back.
  local function set_aside(at, key, run, ...)
    if run[11] then give_back(ARGV[at + 1], key, run[11]) end
    redis.call('HSET', key, 'owner', '', ...)
    acknowledge(ARGV[at + 4], ARGV[at + 5])
    return '6'
  end

  -- Count a run under the rates that it has not been counted under; returns how long it has to wait.
  local function pay(at, key)
    local paid, wait, last = redis.call('HGET', key, 'paid'), 0, at + 6 + 3 * tonumber(ARGV[at + 6])
    for first = at + 7, last, 3 do
      local limit, most, period = unpack(ARGV, first, first + 2)
      if period ~= '0' and not string.find('\n' .. (paid or '') .. '\n', '\n' .. limit .. '\n', 1, true) then
        paid = paid and paid .. '\n' .. limit or limit
        wait = math.max(wait, rate_wait(limit, tonumber(most), tonumber(period)))
        redis.call('HSET', key, 'paid', paid)
      end
    end
    return wait
  end

  -- Where in the line a run stands: what has begun first, then by level and by age.
  local function place_in_line(key, run)
    local priority, enqueued = unpack(redis.call('HMGET', key, 'priority', 'enqueued'))
    local rank = run[6] and 0 or ({high = 1, low = 3})[priority] or 2
    return digits(rank * 100000000000000 + tonumber(enqueued))
  end

  function apply.K(at)
    local mine, key, run = held(at)
    if not mine or run[1] ~= 'running' then return '0' end
    if run[4] then return '2' end
    local id, count = ARGV[at + 1], tonumber(ARGV[at + 6])
    local names, full = {}, nil
    for first = at + 7, at + 6 + 3 * count, 3 do
      local limit, most, holders = ARGV[first], tonumber(ARGV[first + 1]), permits_key(ARGV[first])
      if ARGV[first + 2] == '0' then
        local has, used = ours(redis.pcall('HEXISTS', holders, id)), ours(redis.pcall('HLEN', holders))
        if not has then return '5' end
        -- Where a limit has grown there is room for some who wait already.
        for _ = used + 1, math.min(most, used + 100) do
          if not grant_next(limit) then break end
        end
        if has == 0 and redis.call('HLEN', holders) >= most then full = full or limit end
        names[#names + 1] = limit
      end
    end
    -- The line of a limit is named by arguments: the key may hold anything.
    if full and not ours(redis.pcall('ZCARD', limited_key(full))) then return '5' end
    local wait = pay(at, key)
    if wait > 0 then
      redis.call('ZADD', TIMERS, digits(NOW + wait), id)
      return set_aside(at, key, run, 'state', 'scheduled')
    end
    if full then
      local place = place_in_line(key, run)
      redis.call('ZADD', limited_key(full), place, id)
      redis.call('ZADD', LIMITED, place, id)
      return set_aside(at, key, run, 'state', 'queued', 'entry', '', 'limit', full)
    end
    local wanted = table.concat(names, '\n')
    if run[11] and run[11] ~= wanted then
      -- One that was handed to it under a limit that it does not have any more.
      for limit in string.gmatch(run[11], '[^\n]+') do
        local unwanted = not string.find('\n' .. wanted .. '\n', '\n' .. limit .. '\n', 1, true)
        if unwanted and ours(redis.pcall('HDEL', permits_key(limit), id)) == 1 then grant_next(limit) end
      end
    end
    for _, limit in ipairs(names) do redis.call('HSET', permits_key(limit), id, ARGV[at + 2]) end
    if #names > 0 or run[11] then redis.call('HSET', key, 'permits', wanted) end
    return '1'
  end

  function apply.H(at)
    local level, entry = ARGV[at + 1], ARGV[at + 2]
    local id = pending_here(level, entry)
    if not id then return '0' end
    local run = ours(redis.pcall('HMGET', run_key(id), 'state', 'owner', 'entry')) or {}
    if run[3] == entry and (run[1] == 'queued' or (run[1] == 'running' and run[2] == TOKEN)) then
      requeue(id, ARGV[at + 3])
    end
    acknowledge(level, entry)
    return '1'
  end
end

for index, start in ipairs(starts) do
  if not apply[ARGV[start]] then make_the_rest() end
  verdicts[index] = apply[ARGV[start]](start)
end

-- What was begun comes first; new runs share the rest. What was read to its end is not read again.
local ended = {}
local function read(level, count)
  if count <= 0 or ended[level] then return 0 end
  local reply = redis.call('XREADGROUP', 'GROUP', GROUP, TOKEN, 'COUNT', count, 'STREAMS', STREAM[level], '>')
  local entries = reply and reply[1][2] or {}
  ended[level] = #entries < count
  for _, found in ipairs(entries) do
    if found[2] then take(level, found[1], found[2][2], false) else acknowledge(level, found[1]) end
  end
  return #entries
end

-- Whether runs wait for their turn; asked of whoever takes something.
local shared = false

-- How many of the next `count` runs of a level are the stream's to give; the others are in the backlog.
local function stream_share(level, count)
  if sole[level] == SEVERAL then return count end
  local main, last = unpack(redis.call('HMGET', TURNS, 'main:' .. level, level))
  main = math.max(tonumber(main or '0'), tonumber(last or '0'))
  local due, others = redis.call('ZRANGE', BACKLOG[level], 0, count - 1, 'WITHSCORES'), 0
  for at = 1, count do
    local turn = tonumber(due[2 * others + 2])
    if turn and turn <= main + at - others then others = others + 1 end
  end
  if #due > 0 then redis.call('HSET', TURNS, 'main:' .. level, digits(main + count - others)) end
  return count - others
end

-- The same, in order of turns. What stood in the stream that is read first has been taken by then.
local function serve(level, count)
  if not shared or count <= 0 then return read(level, count) end
  local served = read(level, stream_share(level, count))
  local called = call_up(level, count - served, 'resume', called_up)
  -- It was read to its end, and has these now, all of which are read.
  ended.resume = nil
  return served + read('resume', called)
end

local high, normal, low = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local want = high + normal + low
if want > 0 then
  -- A group that was lost ends the script here. Said again, an end that stands is not indexed again.
  index_ends()
  local apart = tonumber(ARGV[5])
  if apart % 2 == 1 then want = want - read('suspect', 1) end
  want = want - read('resume', want)
  shared = turns_wait()
  if shared then learn_now() end
  -- Half at first: a trial is neither starved by the rest, nor starves it. A single place goes to one
  -- or to the other.
  if apart > 1 then want = want - read('canary', math.floor((want + NOW % 2) / 2)) end
  want = want - serve('high', math.min(high, want))
  want = want - serve('normal', math.min(normal, want))
  want = want - serve('low', math.min(low, want))
  want = want - serve('high', want)
  want = want - serve('normal', want)
  want = want - serve('low', want)
  if apart > 1 then read('canary', want) end
elseif brought then
  shared = turns_wait()
end
-- Somebody else may wait for what is left.
if shared then top_up() end

flush()
return {NOW, table.concat(verdicts), taken, posted}

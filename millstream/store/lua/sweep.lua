-- sweep: look after a lane. Any worker may, as often as it likes; one at a time does the work.
-- USES _lane _streams _moves _backlog _turns _place _trial
--
-- ARGV token         the process that sweeps
-- ARGV interval_ms   how often the work is done, at most
-- ARGV lease_ms      how long a lease is
-- ARGV retention_ms  how long the record of an ended run stays
-- ARGV poison        a run that was held by this many workers in a row when they died, and that
--                    recorded nothing in between, is given up
-- ARGV dead_max      ids the dead-letter index may hold
-- ARGV fresh         1 when this server did not know the script. Where a server does not say which
--                    start of it this is, that tells that it has restarted, or was promoted
--
-- Returns {now_ms, cancelled, promoted, reclaimed, poisoned, next_due_ms, epoch, addressed, posted, paused, trials}
--   cancelled    ids of runs held by this process that somebody asked to cancel
--   next_due_ms  when the next scheduled or parked run goes on; 0 when there is none
--   addressed    ids of runs held by this process that somebody has sent messages to
--   posted       how much stands in the outbox, for other lanes to hear
--   epoch        of the lane: when it grows the queue may have more lanes to serve
--   paused       1 while workers take nothing new from the queue
--   trials       the versions that are on trial, see `_trial`; nothing where there never were any
--
-- After a restart, and after any time in which nobody swept (Redis away, its clock set forward),
-- nothing is reclaimed for one lease: the living renew first.

local TOKEN, INTERVAL, LEASE, RETENTION, POISON, DEAD_MAX =
  ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])

local control = control_key(TOKEN)
local told, cancelled, addressed = ours(redis.pcall('SMEMBERS', control)) or {}, {}, {}
for _, id in ipairs(told) do
  -- It may have ended, and even have been started again, since somebody asked.
  local owner, cancel, received =
    unpack(ours(redis.pcall('HMGET', run_key(id), 'owner', 'cancel', 'received')) or {})
  if owner == TOKEN then
    if cancel then cancelled[#cancelled + 1] = id end
    if received then addressed[#addressed + 1] = id end
  end
end
local function first_due(index)
  local first = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) or nil
end

local function next_due()
  local timer, parked = first_due(TIMERS), first_due(PARKED)
  return math.min(timer or parked or 0, parked or timer or 0)
end

local swept, hold, epoch, paused, server, tried =
  unpack(redis.call('HMGET', META, 'swept', 'hold', 'epoch', 'paused', 'server', 'trials'))
trials = tried
paused = paused and 1 or 0
swept, hold, epoch = tonumber(swept or '0'), tonumber(hold or '0'), tonumber(epoch or '0')
local gap = NOW - swept
local due = next_due()
local fresh = ARGV[7] == '1'
if not fresh and gap >= 0 and gap < INTERVAL and not (due > 0 and due <= NOW) then
  if #told > 0 then redis.call('DEL', control) end
  return {NOW, cancelled, 0, 0, 0, due, epoch, addressed, redis.call('XLEN', OUTBOX), paused, trials or nil}
end
local start = server_start()
if start ~= '' then fresh = server ~= start end
if fresh or gap < 0 or gap > math.max(LEASE / 2, 3 * INTERVAL) then
  hold = NOW + LEASE
  redis.call('HSET', META, 'swept', digits(NOW), 'hold', digits(hold), 'server', start)
else
  redis.call('HSET', META, 'swept', digits(NOW))
end
-- Only now: a script that has written anything may go on writing although the memory is full, and
-- then runs would be taken from workers that cannot renew.
if #told > 0 then redis.call('DEL', control) end
-- A hold that lies further ahead than a lease was set before the clock went back.
if hold > NOW + LEASE then
  hold = NOW + LEASE
  redis.call('HSET', META, 'hold', digits(hold))
end

-- Runs whose time has come.
local promoted = 0

-- A run that was on its version before the trial of it began stands on its side from here on: others have
-- just handed it back, or would. No record of a run says so where nothing was ever tried.
local function joins_trial(key)
  if not trials or trials == '' or not is_tried(key) then return nil end
  redis.call('HSET', key, 'arm', 'canary')
  return 'canary'
end

local function promote(index, expected, resumed)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', digits(NOW), 'LIMIT', 0, 200)) do
    local key = run_key(id)
    local state, priority, fence, crashes, tenant, arm, bytes, attempt = unpack(ours(redis.pcall('HMGET',
      key, 'state', 'priority', 'fence', 'crashes', 'tenant', 'arm', 'bytes', 'attempt')) or {})
    if state == expected then
      -- A worker may have had it only to ask whether it may begin.
      if arm and not resumed and not bytes and not attempt then arm = reviewed(id, key, arm) end
      if not arm then arm = joins_trial(key) end
      local level = level_of(arm, crashes, (resumed or fence) and 'resume', key)
      if level then deliver(id, key, level) else place(id, key, priority or 'normal', tenant or '') end
      promoted = promoted + 1
    end
    redis.call('ZREM', index, id)
  end
end
promote(TIMERS, 'scheduled', false)
promote(PARKED, 'parked', true)

-- Runs of workers that are gone.
local reclaimed, poisoned = 0, 0

local function reclaim(id, token, entry)
  local key = run_key(id)
  local state, owner, current, crashes, mark =
    unpack(ours(redis.pcall('HMGET', key, 'state', 'owner', 'entry', 'crashes', 'mark')) or {})
  if current ~= entry then return end
  if state == 'queued' then
    -- Delivered, never begun: no crash of this run's making.
    requeue(id, RETENTION)
    reclaimed = reclaimed + 1
  elseif state == 'running' and owner == token then
    -- Deaths count in a row: who has recorded something since the last one is not what kills.
    local records = ours(redis.pcall('HLEN', journal_key(id))) or 0
    crashes = records > tonumber(mark or '0') and 1 or tonumber(crashes or '0') + 1
    redis.call('HSET', key, 'mark', digits(records))
    if crashes >= POISON then
      local message = '["worker_lost","' .. crashes .. ' workers died while they held this run"]'
      redis.call('HSET', key, 'owner', '', 'crashes', digits(crashes))
      finish(id, 'failed', message, RETENTION)
      bury(id, DEAD_MAX)
      poisoned = poisoned + 1
    else
      redis.call('HSET', key, 'crashes', digits(crashes))
      requeue(id, RETENTION)
      reclaimed = reclaimed + 1
    end
  end
end

local BATCH = 200
local function bury_worker(token)
  local left = false
  for _, level in ipairs(LEVELS) do
    local pending = redis.call('XPENDING', STREAM[level], GROUP, '-', '+', BATCH, token)
    for _, delivery in ipairs(pending) do
      local found = redis.call('XRANGE', STREAM[level], delivery[1], delivery[1])[1]
      if found then reclaim(found[2][2], token, delivery[1]) end
      acknowledge(level, delivery[1])
    end
    if #pending == BATCH then left = true end
  end
  flush()
  if left then return end
  -- Only a consumer that holds nothing may go: with it would go its pending entries.
  for _, level in ipairs(LEVELS) do redis.call('XGROUP', 'DELCONSUMER', STREAM[level], GROUP, token) end
  redis.call('ZREM', LEASES, token)
  redis.call('HDEL', AGENTS, token, 'sequence:' .. token)
  redis.call('DEL', control_key(token))
end

-- Whoever took work without a lease, such as one that was buried while it was frozen and then
-- woke, would be missed for ever. It gets a lease that has run out, and until the next sweep to renew.
local function list_consumers()
  for _, level in ipairs(LEVELS) do
    local consumers = redis.pcall('XINFO', 'CONSUMERS', STREAM[level], GROUP)
    for _, consumer in ipairs(consumers.err and {} or consumers) do
      redis.call('ZADD', LEASES, 'NX', digits(NOW + LEASE), consumer[2])
    end
  end
  redis.call('HSET', META, 'listed', digits(NOW))
end

-- What a process says of itself may arrive after its burial, and then nobody would take it away:
-- a lapsed lease is buried once. A living process says it again once a lease.
local function forget_strangers()
  for _, field in ipairs(redis.call('HRANDFIELD', AGENTS, 100) or {}) do
    local token = string.match(field, '^sequence:(.*)$') or field
    if not redis.call('ZSCORE', LEASES, token) then redis.call('HDEL', AGENTS, field) end
  end
end

if NOW >= hold then
  for _, token in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', digits(NOW), 'LIMIT', 0, 5)) do
    if token ~= TOKEN then bury_worker(token) end
  end
  -- A lease that ends later than a lease from now was granted before the clock went back.
  for _, token in ipairs(redis.call('ZRANGEBYSCORE', LEASES, digits(NOW + 600000), '+inf', 'LIMIT', 0, 20)) do
    redis.call('ZADD', LEASES, digits(NOW + LEASE), token)
  end
  local listed = tonumber(redis.call('HGET', META, 'listed') or '0')
  if NOW < listed or NOW >= listed + LEASE then
    list_consumers()
    forget_strangers()
  end
end

-- Forget the turns of tenants that have none ahead. Some of them: a sweep comes often.
local function forget_turns()
  for _, name in ipairs(redis.call('HRANDFIELD', TURNS, 100) or {}) do
    local level = string.match(name, '^(%a+):')
    if level and BACKLOG[level] then
      local turn, passed = unpack(redis.call('HMGET', TURNS, name, level))
      if tonumber(turn) <= tonumber(passed or '0') then redis.call('HDEL', TURNS, name) end
    end
  end
end

-- What waits in the stream of trials, a page a sweep: what somebody holds stands before it.
local function untaken()
  local stream, last = STREAM.canary, '0-0'
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  for _, group in ipairs(groups.err and {} or groups) do
    for at = 1, #group, 2 do
      if group[at] == 'last-delivered-id' then last = group[at + 1] end
    end
  end
  local looked = redis.call('HGET', META, 'looked')
  local page = redis.call('XRANGE', stream, '(' .. (looked or last), '+', 'COUNT', 100)
  if #page == 100 then
    redis.call('HSET', META, 'looked', page[100][1])
  elseif looked then
    redis.call('HDEL', META, 'looked')
  end
  return page
end

-- A run whose trial is over goes back to where all others are: nobody need read this stream for it.
local function flow_back(id, key, entry, bytes)
  local crashes, priority, tenant, fence =
    unpack(redis.call('HMGET', key, 'crashes', 'priority', 'tenant', 'fence'))
  local arm = 'canary'
  if bytes then redis.call('HDEL', key, 'arm') arm = nil else arm = reviewed(id, key, arm) end
  local level = level_of(arm, crashes, fence and 'resume', key)
  if level then deliver(id, key, level) else place(id, key, priority or 'normal', tenant or '') end
  acknowledge('canary', entry)
end

-- Nobody may be left who reads the stream of trials: what a run there holds, others wait for. It asks
-- again when it is taken.
for _, found in ipairs(trials and untaken() or {}) do
  local entry, id = found[1], found[2][2]
  local key = run_key(id)
  local state, current, permits, bytes =
    unpack(ours(redis.pcall('HMGET', key, 'state', 'entry', 'permits', 'bytes')) or {})
  if state == 'queued' and current == entry then
    if permits and tonumber(string.match(entry, '^%d+')) <= NOW - LEASE then give_back(id, key, permits) end
    if not is_tried(key) then flow_back(id, key, entry, bytes) end
  end
end
flush()

-- A permit comes back with what becomes of its holder. That of a record which was destroyed, or is another
-- run's by now, comes back here.
local function recover(limit)
  local holders = ours(redis.pcall('HRANDFIELD', permits_key(limit), 20))
  if holders == nil then return end
  if not holders or #holders == 0 then grant_next(limit) end
  for _, id in ipairs(holders or {}) do
    local state, permits = unpack(ours(redis.pcall('HMGET', run_key(id), 'state', 'permits')) or {})
    local holds = (state == 'queued' or state == 'running')
      and string.find('\n' .. (permits or '') .. '\n', '\n' .. limit .. '\n', 1, true)
    if not holds and redis.call('HDEL', permits_key(limit), id) == 1 then grant_next(limit) end
  end
end

-- Only where somebody waits: some of those, other ones each time.
local lined = redis.call('ZCARD', LIMITED)
if lined > 0 then
  local first, looked = 20 * (math.floor(NOW / 1000) % math.ceil(lined / 20)), {}
  for _, id in ipairs(redis.call('ZRANGE', LIMITED, first, first + 19)) do
    local state, limit = unpack(ours(redis.pcall('HMGET', run_key(id), 'state', 'limit')) or {})
    if state ~= 'queued' or not limit then
      redis.call('ZREM', LIMITED, id)
    elseif not looked[limit] then
      looked[limit] = true
      recover(limit)
    end
  end
end

-- Runs that wait for their turn.
if turns_wait() then
  top_up()
  forget_turns()
end

-- Indexes of what has expired.
local gone = redis.call('ZRANGEBYSCORE', ENDED, '-inf', digits(NOW), 'LIMIT', 0, 500)
if #gone > 0 then
  redis.call('ZREM', ENDED, unpack(gone))
  redis.call('ZREM', DEAD, unpack(gone))
end

return {NOW, cancelled, promoted, reclaimed, poisoned, next_due(), epoch, addressed, redis.call('XLEN', OUTBOX), paused,
  trials or nil}

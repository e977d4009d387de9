-- once: accept a run, unless another one stands for it already.
-- USES _lane _streams _backlog _turns _place _trial _accept
--
-- ARGV epoch       the caller's idea of how many lanes the queue has
-- ARGV mode        'dedupe': whoever comes within the window gets the run of whoever came first
--                  'debounce': the run begins when nobody has come for a window; whoever comes before
--                  that gives it other arguments
-- ARGV name        what is to happen once
-- ARGV window_ms
-- ARGV longest_ms  with 'debounce': it begins so long after whoever came first, whoever comes
-- ARGV id          of the run, where it is a new one
-- ARGV workflow
-- ARGV version     empty: whatever the worker that takes it has
-- ARGV arguments
-- ARGV priority
-- ARGV timeout_ms  empty: as the workflow says
-- ARGV tenant      empty: none
-- ARGV trace       empty: none
-- ARGV delay_ms    with 'dedupe'; empty: none
-- ARGV attributes  empty: none
-- ARGV bound       the id of the run that the arguments are sealed for; empty: they are not
--
-- Returns  {-1, lanes, epoch}  the queue was resized, or is about to be; nothing was written
--          {1} accepted, {0, id} that run stands for it, {2, workflow} the one that stands for it is of
--          this workflow, or its key holds something else: nothing was written
--          {4, id} the arguments have to be sealed for the run of this id: the same
--          {3, limit, waiting} the lane holds as many waiting runs as it may: the same
--
-- Safe to send twice: the second time the run stands for itself.

local epoch, lanes, next_, depth, high, normal, low, wide, tried = unpack(redis.call('HMGET', META,
  'epoch', 'lanes', 'next', 'depth', 'sole:high', 'sole:normal', 'sole:low', 'window', 'trials'))
trials = tried
if next_ or (epoch or '0') ~= ARGV[1] then
  return {-1, tonumber(lanes or '1'), tonumber(epoch or '0')}
end
local mode, name, window, longest, id = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local workflow, version, arguments, priority = ARGV[7], ARGV[8], ARGV[9], ARGV[10]
local timeout, tenant, trace, delay, attributes = ARGV[11], ARGV[12], ARGV[13], ARGV[14], ARGV[15]
if not BACKLOG[priority] or string.find(window .. longest .. timeout .. delay, '%D') then error('once: malformed run ' .. id) end
learn(high, normal, low, wide)

-- A run that is debounced may begin late, where no worker was there. So long its name is kept for it.
local LATE = 3600000

-- Who stands for the name, and since when.
local stand = PREFIX .. mode .. ':' .. name
local found = ours(redis.pcall('GET', stand))
if found == nil then return {2, ''} end
local since, known = string.match(found or '', '^(%d+) (.+)$')
local state, whose, fence
if known then
  state, whose, fence = unpack(ours(redis.pcall('HMGET', run_key(known), 'state', 'workflow', 'fence')) or {})
end

if mode == 'debounce' then
  if known and state == 'scheduled' and not fence then
    if whose ~= workflow then return {2, whose} end
    if ARGV[16] ~= '' and ARGV[16] ~= known then return {4, known} end
    local due = math.min(NOW + tonumber(window), tonumber(since) + tonumber(longest))
    redis.call('HSET', run_key(known), 'args', arguments)
    redis.call('ZADD', TIMERS, 'XX', digits(math.max(NOW, due)), known)
    redis.call('PEXPIRE', stand, digits(math.max(0, due - NOW) + LATE))
    return {0, known}
  end
elseif state then
  if whose ~= workflow then return {2, whose} end
  return {0, known}
end

local key = run_key(id)
local taken = ours(redis.pcall('HGET', key, 'workflow'))
if taken == nil then return {2, ''} end
-- Accepted before the reply was lost; what stood for it has gone since.
if taken then return {0, id} end
if ARGV[16] ~= '' and ARGV[16] ~= id then return {4, id} end
local limit = depth and math.ceil(tonumber(depth) / tonumber(lanes or '1'))
local waiting = limit and all_waiting()
if limit and waiting >= limit then return {3, limit, waiting} end

local keep = window
if mode == 'debounce' then
  delay = digits(math.min(tonumber(window), tonumber(longest)))
  keep = digits(tonumber(delay) + LATE)
end
redis.call('SET', stand, NOW_TEXT .. ' ' .. id, 'PX', math.max(1, tonumber(keep)))
accept(id, key, workflow, version, arguments, priority, delay, timeout, tenant, trace, attributes)
return {1}

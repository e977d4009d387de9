-- fork: accept a run that begins with records of another one.
-- USES _lane _streams _backlog _turns _place
--
-- ARGV epoch      the caller's idea of how many lanes the queue has
-- ARGV id
-- ARGV workflow
-- ARGV version    the version it stays on; empty: whatever the worker that takes it has
-- ARGV arguments
-- ARGV priority
-- ARGV timeout_ms empty: as the workflow says
-- ARGV tenant     empty: none
-- ARGV attributes empty: none
-- ARGV origin     where the records come from
-- ARGV count      of the records
-- ARGV ...        the records: key, record, key, record, ... and then in the same way the parts of
--                 values that are too large for a journal
--
-- Returns  {-1, lanes, epoch}  the queue was resized, or is about to be; nothing was written
--          {1} accepted, {0} already here with the same workflow, arguments and origin,
--          {workflow} of the run that holds this id: nothing was written; {2} where a key of the
--          run holds something that is not ours: the same
--
-- Safe to send twice: the second time it is already here.

local epoch, lanes, next_ = unpack(redis.call('HMGET', META, 'epoch', 'lanes', 'next'))
if next_ or (epoch or '0') ~= ARGV[1] then
  return {-1, tonumber(lanes or '1'), tonumber(epoch or '0')}
end

local id, workflow, version, arguments, priority, timeout, tenant, attributes, origin = unpack(ARGV, 2, 10)
local LAST = 11 + 2 * tonumber(ARGV[11])
if #ARGV % 2 ~= 1 or LAST > #ARGV or not BACKLOG[priority] or string.find(timeout, '%D') then
  error('fork: malformed run ' .. id)
end

local key = run_key(id)
local known = ours(redis.pcall('HMGET', key, 'workflow', 'args', 'origin'))
for _, place in ipairs({journal_key(id), spilled_key(id)}) do
  if not ours(redis.pcall('HLEN', place)) then known = nil end
end
if not known then return {2} end
if known[1] then
  if known[1] == workflow and known[2] == arguments and known[3] == origin then return {0} end
  return {known[1]}
end

local bytes = 0
for at = 12, #ARGV, 2 do bytes = bytes + #ARGV[at + 1] end
local fields = {'workflow', workflow, 'args', arguments, 'enqueued', NOW_TEXT, 'origin', origin}
local function append(name, value)
  if value ~= '' then
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
end
append('version', version)
append('timeout', timeout)
append('tenant', tenant)
append('attributes', attributes)
if priority ~= 'normal' then append('priority', priority) end
if bytes > 0 then
  append('bytes', digits(bytes))
  -- A run that was held before has a journal, which whoever takes it loads.
  append('fence', '0')
end
local function fill(place, first, last)
  for at = first, last, 1000 do redis.call('HSET', place, unpack(ARGV, at, math.min(at + 999, last))) end
end
fill(journal_key(id), 12, LAST)
fill(spilled_key(id), LAST + 1, #ARGV)
place(id, key, priority, tenant, unpack(fields))
return {1}

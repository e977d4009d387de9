-- restore: put runs back that have not ended and stand nowhere, so that nobody would go on with them.
-- USES _lane _streams _moves _backlog
--
-- ARGV lease_ms      how long a lease is
-- ARGV retention_ms  how long the record of an ended run stays
-- ARGV ...           ids
--
-- Returns how many runs were put back
--
--   scheduled, parked   without its timer: it is due now, since nobody knows when it would be
--   queued              without its entry: queued again, ahead of what is new
--   running             without its entry and without a living owner: the same. One that has no
--                       lease at all gets the time of a lease to renew, as it may only be missing
--                       from the list of leases.
--
-- Redis loses a part only when somebody deletes it, or when a failover forgets the last writes.

local LEASE, RETENTION = tonumber(ARGV[1]), ARGV[2]
local hold, server = unpack(redis.call('HMGET', META, 'hold', 'server'))
hold = tonumber(hold or '0')
local restored = 0

local function stands(id, entry, priority, limit)
  if limit then return ours(redis.pcall('ZSCORE', limited_key(limit), id)) end
  if entry == '' then return redis.call('ZSCORE', BACKLOG[priority or 'normal'], id) end
  for _, level in ipairs(LEVELS) do
    local found = redis.call('XRANGE', STREAM[level], entry, entry)[1]
    if found and found[2][2] == id then return true end
  end
  return false
end

local function ensure_timer(index, id)
  restored = restored + redis.call('ZADD', index, 'NX', digits(NOW), id)
end

-- Whether the owner of a run that has no entry is gone for sure.
local function abandoned(id, owner, fence)
  if NOW < hold then return false end
  -- Nor while nobody has looked after the lane since the server started: the living renew first.
  local start = server_start()
  if start ~= '' and server ~= start then return false end
  local lease = redis.call('ZSCORE', LEASES, owner)
  if lease then return tonumber(lease) <= NOW end
  local under, since = string.match(redis.call('HGET', run_key(id), 'unowned') or '', '^(%d+) (%d+)$')
  if under == fence and tonumber(since) <= NOW then return NOW - tonumber(since) >= LEASE end
  redis.call('HSET', run_key(id), 'unowned', fence .. ' ' .. digits(NOW))
  return false
end

for index = 3, #ARGV do
  local id = ARGV[index]
  local state, entry, owner, fence, priority, limit = unpack(ours(
    redis.pcall('HMGET', run_key(id), 'state', 'entry', 'owner', 'fence', 'priority', 'limit')) or {})
  if state == 'scheduled' then
    ensure_timer(TIMERS, id)
  elseif state == 'parked' then
    ensure_timer(PARKED, id)
  elseif (state == 'queued' or state == 'running') and not (entry and stands(id, entry, priority, limit)) then
    if state == 'queued' or abandoned(id, owner, fence) then
      redis.call('HDEL', run_key(id), 'unowned', 'limit')
      requeue(id, RETENTION)
      restored = restored + 1
    end
  end
end
flush()
return restored

-- recall: give runs that were drawn for a trial which was rolled back the version that is kept.
-- USES _lane _streams _backlog _turns _place _trial
--
-- ARGV after  an entry of the stream; empty: from its beginning
-- ARGV count  entries to look at, at most
--
-- Returns {recalled, last}: how many runs were, and the entry to go on after; empty: there are no more
--
-- Only what has nothing in its journal, whether or not a worker has had it to ask for a permit. What is
-- delayed is recalled when its time has come (sweep). Safe to send twice: what was recalled does not
-- stand here any more.

local from = ARGV[1] == '' and '-' or '(' .. ARGV[1]
local entries = redis.call('XRANGE', STREAM.canary, from, '+', 'COUNT', ARGV[2])
local count, last = 0, ''
for _, found in ipairs(entries) do
  last = found[1]
  local id = found[2][2]
  local key = run_key(id)
  local state, bytes, entry, priority, tenant, permits =
    unpack(ours(redis.pcall('HMGET', key, 'state', 'bytes', 'entry', 'priority', 'tenant', 'permits')) or {})
  if state == 'queued' and not bytes and entry == last and reviewed(id, key, 'canary') ~= 'canary' then
    if permits then
      deliver(id, key, 'resume')
    else
      place(id, key, priority or 'normal', tenant or '')
    end
    acknowledge('canary', last)
    count = count + 1
  end
end
-- Those that stand in line for a permit stand in no stream. What is behind the first thousand is
-- recalled when a worker refuses it.
if ARGV[1] == '' then
  for _, id in ipairs(redis.call('ZRANGE', LIMITED, 0, 999)) do
    local arm, bytes = unpack(ours(redis.pcall('HMGET', run_key(id), 'arm', 'bytes')) or {})
    if arm == 'canary' and not bytes and reviewed(id, run_key(id), arm) ~= arm then count = count + 1 end
  end
end
flush()
return {count, #entries < tonumber(ARGV[2]) and '' or last}

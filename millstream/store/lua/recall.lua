-- recall: give runs that were drawn for a trial which was rolled back the version that is kept.
-- USES _lane _backlog _turns _place _trial
--
-- ARGV after  an entry of the stream; empty: from its beginning
-- ARGV count  entries to look at, at most
--
-- Returns {recalled, last}: how many runs were, and the entry to go on after; empty: there are no more
--
-- Only what nobody has begun. What is delayed is recalled when its time has come (sweep). Safe to send
-- twice: what was recalled does not stand here any more.

local from = ARGV[1] == '' and '-' or '(' .. ARGV[1]
trials = redis.call('HGET', META, 'trials')
local entries = redis.call('XRANGE', STREAM.canary, from, '+', 'COUNT', ARGV[2])
local count, last = 0, ''
for _, found in ipairs(entries) do
  last = found[1]
  local id = found[2][2]
  local key = run_key(id)
  local state, fence, entry, priority, tenant =
    unpack(ours(redis.pcall('HMGET', key, 'state', 'fence', 'entry', 'priority', 'tenant')) or {})
  if state == 'queued' and not fence and entry == last and recalled(key, trials) then
    place(id, key, priority or 'normal', tenant or '')
    acknowledge('canary', last)
    count = count + 1
  end
end
flush()
return {count, #entries < tonumber(ARGV[2]) and '' or last}

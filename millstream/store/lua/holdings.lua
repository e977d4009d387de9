-- holdings: what a process holds by the store's account, to be compared with its own.
-- USES _lane
--
-- ARGV token  the process
-- ARGV ...    per run it believes to hold: id, fence
--
-- Returns {lost, strays, cancelled, addressed}
--   lost    ids of runs it no longer holds under that fence
--   strays  per delivery that is pending for it but not among those it named: level, entry
--   cancelled  ids of runs it holds and that somebody asked to cancel: a hint may have been lost
--   addressed  ids of runs it holds and that somebody has sent messages to: the same
--
-- Reads only; at most 1,000 deliveries a level.

local TOKEN = ARGV[1]
local named, lost, strays, cancelled, addressed = {}, {}, {}, {}, {}
for index = 2, #ARGV, 2 do
  local id, fence = ARGV[index], ARGV[index + 1]
  named[id] = true
  local run = ours(redis.pcall('HMGET', run_key(id), 'state', 'fence', 'owner', 'cancel', 'received')) or {}
  if run[1] ~= 'running' or run[2] ~= fence or run[3] ~= TOKEN then
    lost[#lost + 1] = id
  else
    if run[4] then cancelled[#cancelled + 1] = id end
    if run[5] then addressed[#addressed + 1] = id end
  end
end
for _, level in ipairs(LEVELS) do
  for _, delivery in ipairs(redis.call('XPENDING', STREAM[level], GROUP, '-', '+', 1000, TOKEN)) do
    local found = redis.call('XRANGE', STREAM[level], delivery[1], delivery[1])[1]
    if not found or not named[found[2][2]] then strays[#strays + 1] = {level, delivery[1]} end
  end
end
return {lost, strays, cancelled, addressed}

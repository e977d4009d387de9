-- watch: read how runs ended, or ask to be told when they do.
-- USES _lane
--
-- ARGV waiter       the inbox to which the end of a run is published
-- ARGV max_waiters  inboxes one run may have
-- ARGV ...          ids
--
-- Returns per id: {state, payload} when it has ended; {state} when the waiter will be told;
--                 {'', ''} when there is no such run
--
-- At the bound the oldest waiter is forgotten: a hint is lost, never an end, since whoever waits
-- asks again from time to time.

local WAITER = ARGV[1]
local answers = {}
for index = 3, #ARGV do
  local id = ARGV[index]
  local key = run_key(id)
  local state, waiters, result, error_ =
    unpack(ours(redis.pcall('HMGET', key, 'state', 'waiters', 'result', 'error')) or {})
  if not state then
    answers[#answers + 1] = {'', ''}
  elseif state == 'completed' then
    answers[#answers + 1] = {state, result}
  elseif state == 'failed' or state == 'cancelled' then
    answers[#answers + 1] = {state, error_}
  else
    local names, known = {}, false
    for name in string.gmatch(waiters or '', '%S+') do
      names[#names + 1] = name
      known = known or name == WAITER
    end
    if not known then
      names[#names + 1] = WAITER
      if #names > tonumber(ARGV[2]) then table.remove(names, 1) end
      redis.call('HSET', key, 'waiters', table.concat(names, ' '))
    end
    answers[#answers + 1] = {state}
  end
end
return answers

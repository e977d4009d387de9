-- revive: start runs that failed or were cancelled once more, from where their journals end.
-- USES _lane
--
-- ARGV ...  ids
--
-- Returns per id: 'queued'; the state it is in when that is not one to revive from; '' no such run
--
-- Every record stays but the failure that escaped the workflow. The attempts made so far no longer
-- count against the retry policy, and the dead workers no longer against the run.

local answers = {}
for index = 1, #ARGV do
  local id = ARGV[index]
  local key = run_key(id)
  local state, attempt, priority, drop =
    unpack(ours(redis.pcall('HMGET', key, 'state', 'attempt', 'priority', 'drop')) or {})
  if state == 'failed' or state == 'cancelled' then
    attempt = attempt or '1'
    deliver(id, key, priority or 'normal', 'base', attempt, 'attempt', digits(tonumber(attempt) + 1))
    redis.call('HDEL', key, 'ended', 'error', 'cancel', 'crashes', 'mark', 'refusals', 'ran', 'drop')
    if drop then
      for name in string.gmatch(drop, '[^\n]+') do ours(redis.pcall('HDEL', journal_key(id), name)) end
    end
    for _, kept in ipairs({key, journal_key(id), events_key(id), spilled_key(id)}) do redis.call('PERSIST', kept) end
    redis.call('ZREM', ENDED, id)
    redis.call('ZREM', DEAD, id)
    answers[#answers + 1] = 'queued'
  else
    answers[#answers + 1] = state or ''
  end
end
return answers

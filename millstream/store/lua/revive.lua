-- revive: start runs that failed or were cancelled once more, from where their journals end.
-- USES _lane _streams _backlog _turns _place _revive
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
  local state, attempt, priority, drop, tenant =
    unpack(ours(redis.pcall('HMGET', key, 'state', 'attempt', 'priority', 'drop', 'tenant')) or {})
  if state == 'failed' or state == 'cancelled' then
    revive(id, key, attempt, priority, drop, tenant)
    answers[#answers + 1] = 'queued'
  else
    answers[#answers + 1] = state or ''
  end
end
return answers

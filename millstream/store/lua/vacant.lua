-- vacant: does a lane hold nothing, neither runs that go on, nor records of those that have ended,
-- nor anything to be said in another lane?
-- USES _lane _backlog
--
-- Returns 1 when it is empty, else 0
--
-- A lane that accepts no runs any more and is vacant stays so: nobody needs to serve it.

for _, level in ipairs(LEVELS) do
  if redis.call('XLEN', STREAM[level]) > 0 then return 0 end
end
for _, index in ipairs({TIMERS, PARKED, ENDED, LIMITED}) do
  if redis.call('ZCARD', index) > 0 then return 0 end
end
if turns_wait() then return 0 end
return redis.call('XLEN', OUTBOX) == 0 and 1 or 0

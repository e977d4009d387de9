-- trial: say in one lane what is on trial, unless somebody else has said something since.
-- USES _lane
--
-- ARGV workflow
-- ARGV before     what was known of the trial, as it is stored; empty: there was none; * whatever it is
-- ARGV after      what is to be known of it; empty: the trial is taken away
-- ARGV line       what scripts have to know of it, see `_trial`; empty with `after`
-- ARGV fresh      1 to count its runs from nothing; so does taking it away
-- ARGV most       trials that a queue may have
--
-- Returns {1, after} done; {0, known} something else is known of it, nothing was written;
--         {-1, ''} there are too many trials, nothing was written
--
-- Safe to send twice: said again with `*` it writes the same; with what was known before it answers 0
-- and what is known, and that is what was to be written.
--
-- The list stays, and be it empty: what was given to a trial is read by every worker from then on.

local WORKFLOW, BEFORE, AFTER, LINE, MOST = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[6])
local TRIALS, TRIED = PREFIX .. 'trials', PREFIX .. 'tried'

local known = redis.call('HGET', TRIALS, WORKFLOW) or ''
if BEFORE ~= '*' and known ~= BEFORE then return {0, known} end
if known == '' and AFTER ~= '' and redis.call('HLEN', TRIALS) >= MOST then return {-1, ''} end

local lines, was = {}, ''
for line in string.gmatch(redis.call('HGET', META, 'trials') or '', '[^\n]+') do
  if string.match(line, '^%S+') == WORKFLOW then was = line else lines[#lines + 1] = line end
end
if LINE ~= '' then lines[#lines + 1] = LINE end
redis.call('HSET', META, 'trials', table.concat(lines, '\n'))
if AFTER == '' then redis.call('HDEL', TRIALS, WORKFLOW) else redis.call('HSET', TRIALS, WORKFLOW, AFTER) end

-- What is counted of versions that are not on trial any more would stay for ever.
local function forget(line)
  local version, kept = string.match(line, '^%S+ (%S+) (%S+)')
  for _, state in ipairs(version and {'completed', 'failed', 'cancelled'} or {}) do
    redis.call('HDEL', TRIED, WORKFLOW .. ' ' .. version .. ' ' .. state, WORKFLOW .. ' ' .. kept .. ' ' .. state)
  end
end
if ARGV[5] == '1' or AFTER == '' then
  forget(was)
  forget(LINE)
end
return {1, AFTER}

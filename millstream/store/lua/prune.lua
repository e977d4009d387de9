-- prune: take entries out of a stream that mean nothing any more.
-- USES _lane _streams
--
-- ARGV level  the stream
-- ARGV after  the entry behind which to begin; '-' to begin with the first
-- ARGV count  how many entries to look at
--
-- Returns {dropped, last}   last: the entry that was looked at last; '' at the end of the stream
--
-- Whoever took such an entry would throw it away: its run has ended, its record is gone, or names
-- another entry. In a lane that nobody serves they would stay, and count as waiting.

local level, after, count = ARGV[1], ARGV[2], tonumber(ARGV[3])
local FINAL = {completed = true, failed = true, cancelled = true}

if after ~= '-' then after = '(' .. after end
local entries = redis.call('XRANGE', STREAM[level], after, '+', 'COUNT', count)
local dropped = 0
for _, found in ipairs(entries) do
  local state, entry = unpack(ours(redis.pcall('HMGET', run_key(found[2][2]), 'state', 'entry')) or {})
  if not state or FINAL[state] or entry ~= found[1] then
    acknowledge(level, found[1])
    dropped = dropped + 1
  end
end
flush()
return {dropped, #entries == count and entries[count][1] or ''}

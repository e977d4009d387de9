-- published: what the leader has measured, and how long ago it said so.
--
-- KEYS samples   string: when it was written, in ms, and what was measured
--
-- Returns {age_ms, samples}; nil when nothing was published.
--
-- Reads only.

local found = redis.call('GET', KEYS[1])
if not found then return false end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local written, samples = string.match(found, '^(%d+) (.*)$')
return {math.max(0, now - tonumber(written)), samples}

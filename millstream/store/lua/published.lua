-- published: what the leader has measured, and how long ago it said so.
--
-- KEYS samples   string: when it was written, in ms, and what was measured
--
-- Returns {age_ms, samples}; nil when nothing was published, or nobody can say how long ago.
--
-- Reads only.

local found = redis.call('GET', KEYS[1])
if not found then return false end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local written, samples = string.match(found, '^(%d+) (.*)$')
local age = now - tonumber(written)
-- The clock went back, as it does when a replica takes over: by how much is not known. A clock that
-- is merely set right goes back by less.
if age < -1000 then return false end
return {math.max(0, age), samples}

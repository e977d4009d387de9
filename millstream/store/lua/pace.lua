-- pace: reserve times under a rate for calls that are about to be made.
--
-- KEYS rate       string: when what was reserved is used up, in ms
--
-- ARGV count      how many are to be made
-- ARGV most       so many may be made
-- ARGV period_ms  in such a period: that many at once, and then evenly spread
--
-- Returns {first, step}, in ms, as text: how long the first of them has to wait, below 0 when it could
-- have been made earlier; and how much longer each one after it
--
-- Sent twice it reserves twice: fewer are made then than might be.

local RATE = KEYS[1]
local COUNT, MOST, PERIOD = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000
local step = PERIOD / MOST
-- What was reserved under a clock that went back, or under a rate that was lower, holds for 31 days at most.
local before = math.min(tonumber(redis.call('GET', RATE) or '0') or 0, now + 31 * 86400000)
before = math.max(before, now)
local full = before + COUNT * step
redis.call('SET', RATE, string.format('%.3f', full), 'PX', string.format('%.0f', full - now + 1000))
return {string.format('%.3f', before + step - now - PERIOD), string.format('%.3f', step)}

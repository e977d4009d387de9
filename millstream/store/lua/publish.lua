-- publish: let every scheduler know what the leader has measured.
--
-- KEYS seat      hash: token, fence, until, length; see elect
-- KEYS samples   string: when it was written, in ms, and what was measured
--
-- ARGV token     the leader
-- ARGV fence     its term
-- ARGV keep_ms   how long it is kept; much longer than anybody believes it
-- ARGV samples   what was measured
--
-- Returns 1 when it was written, 0 when somebody else leads.
--
-- Safe to send twice.

local holder, fence = unpack(redis.call('HMGET', KEYS[1], 'token', 'fence'))
if holder ~= ARGV[1] or fence ~= ARGV[2] then return 0 end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('SET', KEYS[2], string.format('%.0f', now) .. ' ' .. ARGV[4], 'PX', ARGV[3])
return 1

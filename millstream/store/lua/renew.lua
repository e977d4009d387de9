-- renew: say that a process is alive.
-- USES _lane
--
-- ARGV token     the process
-- ARGV lease_ms  how long it may be silent before its runs are given to others
--
-- Returns {now_ms, lapsed}   lapsed: 1 when there was no lease, or it had run out
--
-- It grants nothing back by itself: whoever hears that its lease had lapsed asks for its holdings.

local before = redis.call('ZSCORE', LEASES, ARGV[1])
redis.call('ZADD', LEASES, digits(NOW + tonumber(ARGV[2])), ARGV[1])
return {NOW, (before and tonumber(before) > NOW) and 0 or 1}

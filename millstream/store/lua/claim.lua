-- claim: take things that are due, and keep others from taking them for a while.
--
-- KEYS due       sorted set: what is to be done -> when, in ms
--
-- ARGV lease_ms  for how long nobody else takes them
--
-- Returns {thing, thing, ...}: at most 20, those that were due first.
--
-- Whoever took a thing says when it is due again, or takes it away; whoever dies leaves it to be
-- taken again. Safe to send twice: what is not answered is taken again when the lease is over.

local DUE, LEASE = KEYS[1], tonumber(ARGV[1])

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local things = redis.call('ZRANGEBYSCORE', DUE, '-inf', string.format('%.0f', now), 'LIMIT', 0, 20)
for i = 1, #things do
  redis.call('ZADD', DUE, string.format('%.0f', now + LEASE), things[i])
end
return things

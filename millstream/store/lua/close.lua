-- close: accept no more runs under an epoch; the queue is about to have another number of lanes.
-- USES _lane
--
-- ARGV epoch  the epoch that ends
-- ARGV lanes  how many lanes the queue has in the next one
--
-- Returns {epoch, lanes, past, next}: how the lane stands afterwards
--   past  the numbers of lanes the queue has had before, newest first, with commas
--   next  the number of lanes it is closed for; 0 when it is open
--
-- Safe to send twice, and at any later time: a lane of a newer epoch is left as it is, and one
-- that is closed stays closed for whoever came first. Runs that are here feel nothing.

local epoch, lanes, past, next_ = unpack(redis.call('HMGET', META, 'epoch', 'lanes', 'past', 'next'))
if not next_ and tonumber(epoch or '0') <= tonumber(ARGV[1]) then
  next_ = ARGV[2]
  redis.call('HSET', META, 'next', next_)
end
return {tonumber(epoch or '0'), tonumber(lanes or '1'), past or '', tonumber(next_ or '0')}

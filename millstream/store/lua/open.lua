-- open: begin an epoch in a lane. Every lane of the epoch before was closed first.
-- USES _lane
--
-- ARGV epoch  the epoch that begins
-- ARGV lanes  how many lanes the queue has in it
-- ARGV past   the numbers of lanes the queue has had before, newest first, with commas
-- ARGV depth  how many waiting runs the whole queue may hold; 0: no limit
--
-- Returns 1 when it began now, 0 when the lane was of this epoch already, or of a newer one
--
-- Safe to send twice, and at any later time.

if tonumber(redis.call('HGET', META, 'epoch') or '0') >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', META, 'epoch', ARGV[1], 'lanes', ARGV[2], 'past', ARGV[3])
redis.call('HDEL', META, 'next')
if ARGV[4] == '0' then redis.call('HDEL', META, 'depth') else redis.call('HSET', META, 'depth', ARGV[4]) end
return 1

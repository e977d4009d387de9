-- How the tenants of a lane share it: what does not fit into a stream's window waits in a backlog, in turns.
--
-- While all that waits in a stream is of one tenant, that tenant's runs go straight there, however many
-- they are, and this costs nothing. Another tenant's run joins them while fewer than a window wait.
-- Otherwise it is given a turn, one behind the last one of its tenant and never one that has passed, and
-- waits in the backlog of its level. Whoever takes work takes it in order of turns: from the backlogs, and
-- from a stream of one tenant as if its entries had turns of their own. A stream of several tenants is
-- never longer than a window, and goes first.
--
-- As long as a backlog holds something, something waits in the stream too: a worker that has nothing to
-- do waits there, and what it finds makes it ask for the rest. Every commit that takes sees to that, and
-- every sweep.
--
--   backlog:<level>  sorted set: run id -> its turn; a run that stands here has an empty `entry`
--   turns            hash: <level> the last turn that has passed; main:<level> the same of its stream;
--                    <level>:<tenant> the last turn that the tenant was given
--
-- These keys exist only while somebody waits there. They are built here and not handed in, so that what
-- every call sends is no longer for them.

local FRESH = {'high', 'normal', 'low'}
local BACKLOG = {high = PREFIX .. 'backlog:high', normal = PREFIX .. 'backlog:normal', low = PREFIX .. 'backlog:low'}
local TURNS = PREFIX .. 'turns'
-- Stands for the tenant where there are several: no tenant's name holds a line feed.
local SEVERAL = '\n'

-- Whether anybody waits for a turn.
local function turns_wait() return redis.call('EXISTS', BACKLOG.high, BACKLOG.normal, BACKLOG.low) > 0 end

-- spill: keep a part of a value that is too large for a journal, before a record refers to it.
-- USES _lane
--
-- ARGV token      the process that writes; must own the run
-- ARGV id         the run
-- ARGV fence      under which the process holds it
-- ARGV part       the name of the part
-- ARGV data       what is in it
-- ARGV max_bytes  bytes that the journal of a run may hold, parts included
--
-- Returns a verdict, as commit does: 1 kept, 2 kept and somebody asked for the run to be cancelled,
-- 0 fenced off, 3 the journal is full, 5 the key of the parts or of the record is not ours
--
-- Safe to send twice: a part replaces itself. Parts count as bytes of the journal, so whoever ends
-- the run knows by them that there may be some.

local TOKEN, ID, FENCE, PART, DATA, MAX_BYTES = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])

local key, parts = run_key(ID), spilled_key(ID)
local run = ours(redis.pcall('HMGET', key, 'state', 'fence', 'owner', 'cancel', 'bytes'))
if not run then return 5 end
if run[1] ~= 'running' or run[2] ~= FENCE or run[3] ~= TOKEN then return 0 end

local replaced = ours(redis.pcall('HSTRLEN', parts, PART))
if not replaced then return 5 end
local before = tonumber(run[5] or '0')
local bytes = before + #DATA - replaced
if bytes > MAX_BYTES and bytes > before then return 3 end

redis.call('HSET', parts, PART, DATA)
redis.call('HSET', key, 'bytes', digits(bytes))
return run[4] and 2 or 1

-- audit: append to the trail, unless somebody else has meanwhile.
--
-- KEYS trail     stream: what was done, entry n under the id n-0; fields: entry, hash
-- KEYS head      hash: seq, hash (of the last entry); base, base_hash (of the last one trimmed away)
--
-- ARGV seq       the number of the last entry, as the caller knows it; -1 to ask for it
-- ARGV hash      its hash
-- ARGV most      entries that are kept
-- ARGV oldest_ms entries from before this time are trimmed
-- ARGV ...       per entry: its hash, its text; each text names the hash before it
--
-- Returns {1, seq, hash, now_ms}  appended
--         {0, seq, hash, now_ms}  the trail has another end than the caller thought: nothing was written
--
-- What is trimmed leaves its hash behind, so that what follows can still be verified. A caller that
-- got no answer asks again for the end: it finds its own hash there, or writes anew.

local TRAIL, HEAD = KEYS[1], KEYS[2]
-- Of what is too old so much is trimmed at once, and of everything at most so much.
local MORE, PART = 10, 500

local function digits(number) return string.format('%.0f', number) end

local time = redis.call('TIME')
local now = digits(tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
local seq, hash = unpack(redis.call('HMGET', HEAD, 'seq', 'hash'))
seq, hash = seq or '0', hash or ''

if ARGV[1] ~= seq or ARGV[2] ~= hash then return {0, seq, hash, now} end

local number = tonumber(seq)
for at = 5, #ARGV - 1, 2 do
  number = number + 1
  hash = ARGV[at]
  redis.call('XADD', TRAIL, digits(number) .. '-0', 'entry', ARGV[at + 1], 'hash', hash)
end
redis.call('HSET', HEAD, 'seq', digits(number), 'hash', hash)

-- The last entry stays, however old it is.
local length = redis.call('XLEN', TRAIL)
local over = math.max(0, length - math.max(1, tonumber(ARGV[3])))
local some = math.min(length - 1, over + MORE, PART)
local first = some > 0 and redis.call('XRANGE', TRAIL, '-', '+', 'COUNT', some) or {}
local last
for index, found in ipairs(first) do
  local at = tonumber(string.match(found[2][2], '"at":(%d+)') or now)
  if index > over and at >= tonumber(ARGV[4]) then break end
  last = found
end
if last then
  local trimmed = string.match(last[1], '^%d+')
  redis.call('HSET', HEAD, 'base', trimmed, 'base_hash', last[2][4])
  redis.call('XTRIM', TRAIL, 'MINID', digits(tonumber(trimmed) + 1) .. '-0')
end
return {1, digits(number), hash, now}

-- pool: say how many permits of a pool a process keeps and how many more it wants; hear how many it has.
--
-- KEYS pool      hash: `out` how many permits are out, `spoke` when somebody was here last, `hold` until
--                when nothing lapses, `came` how many have lined up
-- KEYS until     sorted set: token -> when what the process has, or waits for, lapses, in ms
-- KEYS line      sorted set: token of a process that waits -> its place
-- KEYS has       hash: token -> how many permits it has, the last sequence, how many more it waits for
--
-- ARGV token     the process
-- ARGV sequence  grows with every call of the process for this pool
-- ARGV keep      how many of those that it has the process keeps; the others are given back
-- ARGV want      how many more it wants
-- ARGV most      how many there are
-- ARGV lease_ms  for how long it has them, unless it speaks again
--
-- Returns {has, others, lapse_ms}; nil, and nothing is done, when a later call came before this one
--   has       how many the process has now. Fewer than it keeps: its lease had run out, and others have
--             taken them
--   others    how many other processes wait
--   lapse_ms  how long until the next lease of anybody runs out
--
-- Never more are out than there are, unless one that keeps less than it uses says so. Whoever waits is
-- told on the channel `<prefix>said`: a token there says that there is a permit for this process, and with
-- a `+` before it that this process waits. A message is a hint, and what is here the truth. Where nobody spoke for half a lease Redis was away:
-- nothing lapses for one lease then, since those who live could not renew.
--
-- Safe to send twice: the second time it answers nil, and whoever lost the reply asks under a new number
-- what it would have asked for.

local POOL, UNTIL, LINE, HAS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local TOKEN = ARGV[1]
local SEQUENCE, KEEP, WANT, MOST, LEASE =
  tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local SAID = string.sub(POOL, 1, -5) .. 'said'

local function digits(number) return string.format('%.0f', number) end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function row_of(token)
  local has, sequence, wants = string.match(redis.call('HGET', HAS, token) or '', '^(%d+) (%d+) (%d+)$')
  return tonumber(has or '0'), tonumber(sequence), tonumber(wants or '0')
end

local had, last = row_of(TOKEN)
if last and SEQUENCE <= last then return false end

local out, spoke, hold = unpack(redis.call('HMGET', POOL, 'out', 'spoke', 'hold'))
out, spoke, hold = tonumber(out or '0'), tonumber(spoke or digits(now)), tonumber(hold or '0')
if now < spoke or now - spoke > LEASE / 2 then hold = now + LEASE end
-- One that lies further ahead than a lease was set before the clock went back.
hold = math.min(hold, now + LEASE)

if now >= hold then
  for _, token in ipairs(redis.call('ZRANGEBYSCORE', UNTIL, '-inf', digits(now), 'LIMIT', 0, 100)) do
    if token ~= TOKEN then
      out = out - row_of(token)
      redis.call('HDEL', HAS, token)
      redis.call('ZREM', UNTIL, token)
      redis.call('ZREM', LINE, token)
    end
  end
end

-- What it uses comes before what anybody waits for.
local has = math.min(KEEP, had)
out = out - had + has
local back = math.min(KEEP - has, math.max(0, MOST - out))
has, out = has + back, out + back

-- Of what is free then, those who came before have their part first. Who gives something back has had
-- its turn: all who stand in the line came before it.
local gives = KEEP < had
local before = 0
for _, token in ipairs(WANT > 0 and redis.call('ZRANGE', LINE, 0, 999) or {}) do
  if token == TOKEN and not gives then break end
  local _, _, wants = row_of(token)
  if token ~= TOKEN then before = before + wants end
  if out + before >= MOST then break end
end
local granted = math.max(0, math.min(WANT, MOST - out - before))
has, out = has + granted, out + granted

local waits = WANT - granted
if has + waits > 0 then
  redis.call('HSET', HAS, TOKEN, digits(has) .. ' ' .. ARGV[2] .. ' ' .. digits(waits))
  redis.call('ZADD', UNTIL, digits(now + LEASE), TOKEN)
else
  redis.call('HDEL', HAS, TOKEN)
  redis.call('ZREM', UNTIL, TOKEN)
end
local stood = redis.call('ZSCORE', LINE, TOKEN)
if waits == 0 then
  redis.call('ZREM', LINE, TOKEN)
elseif granted > 0 or gives or not stood then
  -- Who has had a turn goes to the end.
  redis.call('ZADD', LINE, digits(redis.call('HINCRBY', POOL, 'came', 1)), TOKEN)
  if not stood and out > has then redis.call('PUBLISH', SAID, '+' .. TOKEN) end
end

-- Those for whom there is one now.
local free = MOST - out
for _, token in ipairs(free > 0 and redis.call('ZRANGE', LINE, 0, 999) or {}) do
  if free <= 0 then break end
  local _, _, wants = row_of(token)
  free = free - wants
  if token ~= TOKEN then redis.call('PUBLISH', SAID, token) end
end

redis.call('HSET', POOL, 'out', digits(out), 'spoke', digits(now), 'hold', digits(hold))
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, digits(10 * LEASE + 60000)) end
local first = redis.call('ZRANGE', UNTIL, 0, 0, 'WITHSCORES')[2]
return {
  has, redis.call('ZCARD', LINE) - (waits > 0 and 1 or 0),
  first and math.max(0, math.max(tonumber(first), hold) - now) or LEASE,
}

-- elect: lead, go on leading, or cease to: one seat, and one who sits on it.
--
-- KEYS seat      hash: token, fence, until, length (of the term, in ms)
--
-- ARGV token     the candidate
-- ARGV fence     the term to go on with; 0 to seek a new one
-- ARGV lease_ms  how long the term lasts unless it is renewed; 0 to resign from it
--
-- Returns {leading, fence, left_ms}
--   leading  1 when the candidate sits on the seat now
--   fence    of the term; it grows with every election
--   left_ms  how much of the term is left, whosever it is; 0 when the seat is free
--
-- Safe to send twice. A renewal never elects: sent before a resignation and read after it, it
-- must not seat again who has left.

local SEAT, TOKEN, FENCE, LEASE = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local function digits(number) return string.format('%.0f', number) end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local holder, fence, ends, length = unpack(redis.call('HMGET', SEAT, 'token', 'fence', 'until', 'length'))
fence, ends, length = tonumber(fence or '0'), tonumber(ends or '0'), tonumber(length or '0')

-- A term that ends later than its length from now was granted before the clock went back.
if ends > now + length then
  ends = now + length
  redis.call('HSET', SEAT, 'until', digits(ends))
end

local taken = ends > now
local mine = taken and holder == TOKEN and (FENCE == 0 or FENCE == fence)

if LEASE == 0 then
  if mine then
    redis.call('HSET', SEAT, 'token', '', 'until', '0')
    return {0, fence, 0}
  end
elseif mine or (FENCE == 0 and not taken) then
  if not mine then fence = fence + 1 end
  redis.call('HSET', SEAT, 'token', TOKEN, 'fence', digits(fence),
    'until', digits(now + LEASE), 'length', digits(LEASE))
  return {1, fence, LEASE}
end
return {0, fence, math.max(0, ends - now)}

-- board: pin a note to a board, and read the notes of the others. A note falls off by itself.
--
-- KEYS board     hash: token -> <until in ms>:<note>
--
-- ARGV token     whose note it is
-- ARGV note      what it says; empty to take it down
-- ARGV ttl_ms    how long it hangs unless it is pinned anew
--
-- Returns {token, note, token, note, ...}: every other note that hangs; of more than 1000 notes,
-- those that fell off included, some are left out.
--
-- Pinning and reading are one step, so of two processes that pin at the same time the second sees
-- the first. Safe to send twice.

local BOARD, TOKEN, NOTE, TTL = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local rows = redis.call('HRANDFIELD', BOARD, 1000, 'WITHVALUES') or {}
local found, fallen = {}, {}
for i = 1, #rows, 2 do
  local edge = string.find(rows[i + 1], ':', 1, true)
  local ends = edge and tonumber(string.sub(rows[i + 1], 1, edge - 1))
  if not ends or ends <= now then
    fallen[#fallen + 1] = rows[i]
  elseif rows[i] ~= TOKEN then
    found[#found + 1] = rows[i]
    found[#found + 1] = string.sub(rows[i + 1], edge + 1)
  end
end
if #fallen > 0 then redis.call('HDEL', BOARD, unpack(fallen)) end

if TOKEN ~= '' then
  if NOTE == '' then
    redis.call('HDEL', BOARD, TOKEN)
  else
    redis.call('HSET', BOARD, TOKEN, string.format('%.0f', now + TTL) .. ':' .. NOTE)
    -- When nobody pins any more the whole board goes, sometime after its last note.
    redis.call('PEXPIRE', BOARD, string.format('%.0f', TTL * 2 + 60000))
  end
end
return found

-- reseal: replace values of one run by what is the same, sealed otherwise.
-- USES _lane
--
-- ARGV id
-- ARGV ...  per value four: part (run, journal, received, spilled), field, what stands (empty:
--           nothing), what is to stand; or `drop`, the name of a part of a value, a step, and the
--           record of that step under which the part is taken away
--
-- Returns how many were replaced, or stood so already; -1 when a worker holds the run: nothing was
-- written. A value that is another one by now is left as it is.
--
-- Safe to send twice, and beside anything: what a worker holds in its memory it reads only after it
-- has taken the run, and from there on nothing is replaced here.

local ID = ARGV[1]
local PART = {run = run_key(ID), journal = journal_key(ID), received = received_key(ID), spilled = spilled_key(ID)}
if (#ARGV - 1) % 4 ~= 0 then error('reseal: a value is cut short') end
for at = 2, #ARGV, 4 do
  if not PART[ARGV[at]] and ARGV[at] ~= 'drop' then error('reseal: malformed value ' .. ARGV[at]) end
end

local key = run_key(ID)
local state, bytes = unpack(ours(redis.pcall('HMGET', key, 'state', 'bytes')) or {})
if state == 'running' then return -1 end

local done, grown = 0, {journal = 0, received = 0, spilled = 0, run = 0}

local function replace(part, field, before, after)
  local found = ours(redis.pcall('HGET', PART[part], field))
  if found == nil then return end
  found = found or ''
  if found == after then done = done + 1 end
  if found ~= before or found == after then return end
  redis.call('HSET', PART[part], field, after)
  done = done + 1
  grown[part] = grown[part] + #after - #before
end

-- Only where the record is the one that refers to other parts.
local function drop(part, step, record)
  if ours(redis.pcall('HGET', PART.journal, step)) ~= record then return end
  local size = ours(redis.pcall('HSTRLEN', PART.spilled, part)) or 0
  if size > 0 then redis.call('HDEL', PART.spilled, part) end
  grown.spilled = grown.spilled - size
end

if state then
  for at = 2, #ARGV, 4 do
    if ARGV[at] == 'drop' then drop(unpack(ARGV, at + 1, at + 3)) else replace(unpack(ARGV, at, at + 3)) end
  end
  -- What is counted in bytes is counted as it stands.
  if bytes and grown.journal + grown.spilled ~= 0 then
    redis.call('HINCRBY', key, 'bytes', digits(grown.journal + grown.spilled))
  end
  if grown.received ~= 0 then redis.call('HINCRBY', PART.received, '#bytes', digits(grown.received)) end
end
return done

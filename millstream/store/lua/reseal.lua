-- reseal: replace values of one run by what is the same, sealed otherwise.
-- USES _lane
--
-- ARGV id
-- ARGV ...  per value four: part (run, journal, received), field, what stands (empty: nothing), what is
--           to stand; or one of
--             for, step, record, ''      the parts that follow are for that step, while this is its record
--             spilled, name, '', data    a part of a value, under a name that nobody else writes
--             drop, name, step, record   take a part away, if this is the record of the step
--             void, name, step, record   take a part away, unless this is the record of the step
--
-- Returns how many were replaced, or stood so already; -1 when a worker holds the run: nothing was
-- written but what is void. A value that is another one by now is left as it is.
--
-- Safe to send twice, and beside anything: what a worker holds in its memory it reads only after it
-- has taken the run, and from there on nothing is replaced here.

local ID = ARGV[1]
local PART = {run = run_key(ID), journal = journal_key(ID), received = received_key(ID), spilled = spilled_key(ID)}
local OTHER = {['for'] = true, drop = true, void = true}
if (#ARGV - 1) % 4 ~= 0 then error('reseal: a value is cut short') end
for at = 2, #ARGV, 4 do
  if not PART[ARGV[at]] and not OTHER[ARGV[at]] then error('reseal: malformed value ' .. ARGV[at]) end
end

local key = run_key(ID)
local state, bytes = unpack(ours(redis.pcall('HMGET', key, 'state', 'bytes')) or {})
local done, grown = 0, {journal = 0, received = 0, spilled = 0, run = 0}

local function stands(step, record) return ours(redis.pcall('HGET', PART.journal, step)) == record end

local wanted = false

local function replace(part, field, before, after)
  if part == 'spilled' and not wanted then return end
  local found = ours(redis.pcall('HGET', PART[part], field))
  if found == nil then return end
  found = found or ''
  if found == after then done = done + 1 end
  if found ~= before or found == after then return end
  redis.call('HSET', PART[part], field, after)
  done = done + 1
  grown[part] = grown[part] + #after - #before
end

local function drop(part)
  local size = ours(redis.pcall('HSTRLEN', PART.spilled, part)) or 0
  if size > 0 then redis.call('HDEL', PART.spilled, part) end
  grown.spilled = grown.spilled - size
end

local function apply(what, name, step, record)
  if what == 'for' then
    wanted = stands(name, step)
  elseif what == 'drop' then
    if stands(step, record) then drop(name) end
  elseif what ~= 'void' then
    replace(what, name, step, record)
  elseif not stands(step, record) then
    drop(name)
  end
end

if state then
  for at = 2, #ARGV, 4 do
    if state ~= 'running' or ARGV[at] == 'void' then apply(unpack(ARGV, at, at + 3)) end
  end
  -- What is counted in bytes is counted as it stands.
  if bytes and grown.journal + grown.spilled ~= 0 then
    redis.call('HINCRBY', key, 'bytes', digits(grown.journal + grown.spilled))
  end
  if grown.received ~= 0 then redis.call('HINCRBY', PART.received, '#bytes', digits(grown.received)) end
end
if state == 'running' then return -1 end
return done

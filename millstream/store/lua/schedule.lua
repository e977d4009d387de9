-- schedule: write schedules, each unless somebody has written it since it was read.
--
-- KEYS due       sorted set: name of a schedule -> when somebody has to look at it, in ms
-- KEYS names     sorted set: the names of all schedules, each with score 0
-- KEYS revision  counter: how often any schedule has been written
--
-- ARGV most      how many schedules there may be
-- ARGV ...       per schedule five values:
--   name
--   revision  under which it was read; 0: there is none
--   spec      what it says; empty: as before
--   progress  how far it has come; empty: the schedule is deleted
--   due_ms    when somebody has to look at it again; empty: never
--
-- Returns per schedule its new revision, also when that is its end; 0 when it is another one by
--         now, nothing was written; -1 when there are too many, nothing was written
--
-- Revisions are never used twice, not even by a schedule that is made anew under an old name. Sent
-- twice, the second writes nothing and answers 0: whoever has lost a reply reads again.

local DUE, NAMES, REVISION = KEYS[1], KEYS[2], KEYS[3]
local PREFIX = string.sub(DUE, 1, -4)
local MOST = tonumber(ARGV[1])

if (#ARGV - 1) % 5 ~= 0 then error('schedule: a schedule is cut short') end
for at = 2, #ARGV, 5 do
  if ARGV[at] == '' or string.find(ARGV[at + 1], '^%d+$') == nil or string.find(ARGV[at + 4], '%D') then
    error('schedule: malformed schedule ' .. ARGV[at])
  end
end

local function write(key, name, spec, progress, due)
  local revision = redis.call('INCR', REVISION)
  redis.call('HSET', key, 'progress', progress, 'revision', revision)
  if spec ~= '' then redis.call('HSET', key, 'spec', spec) end
  redis.call('ZADD', NAMES, 0, name)
  if due == '' then redis.call('ZREM', DUE, name) else redis.call('ZADD', DUE, due, name) end
  return revision
end

local function delete(key, name)
  redis.call('DEL', key)
  redis.call('ZREM', NAMES, name)
  redis.call('ZREM', DUE, name)
  return redis.call('INCR', REVISION)
end

local answers = {}
for at = 2, #ARGV, 5 do
  local name, revision, spec, progress, due = unpack(ARGV, at, at + 4)
  local key = PREFIX .. 'schedule:' .. name
  if (redis.call('HGET', key, 'revision') or '0') ~= revision then
    answers[#answers + 1] = 0
  elseif progress == '' then
    answers[#answers + 1] = delete(key, name)
  elseif revision == '0' and redis.call('ZCARD', NAMES) >= MOST then
    answers[#answers + 1] = -1
  else
    answers[#answers + 1] = write(key, name, spec, progress, due)
  end
end
return answers

-- due: read the schedules whose time has come.
--
-- KEYS due       sorted set: name of a schedule -> when somebody has to look at it, in ms
-- KEYS names     sorted set: the names of all schedules, each with score 0
-- KEYS revision  counter: how often any schedule has been written
--
-- ARGV count     how many, at most; 0 only asks for the time
--
-- Returns {now_ms, next_ms, name, revision, spec, progress, name, ...}
--   next_ms  when the next schedule is due that is not among these; 0 when there is none
--
-- Writes nothing but the loss of a name: one whose schedule is gone.

local DUE, COUNT = KEYS[1], tonumber(ARGV[1])
local PREFIX = string.sub(DUE, 1, -4)

local function digits(number) return string.format('%.0f', number) end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local names = {}
if COUNT > 0 then
  names = redis.call('ZRANGEBYSCORE', DUE, '-inf', digits(now), 'LIMIT', 0, 100)
  for index = #names, COUNT + 1, -1 do names[index] = nil end
end
local later = redis.call('ZRANGE', DUE, #names, #names, 'WITHSCORES')
local answer = {now, later[2] and tonumber(later[2]) or 0}
for _, name in ipairs(names) do
  local row = redis.pcall('HMGET', PREFIX .. 'schedule:' .. name, 'revision', 'spec', 'progress')
  -- Something else under the key of one schedule must not keep the others from being read.
  if row.err and not string.find(tostring(row.err), 'WRONGTYPE', 1, true) then error(row) end
  if row[1] then
    answer[#answer + 1] = name
    for index = 1, 3 do answer[#answer + 1] = row[index] end
  else
    redis.call('ZREM', DUE, name)
  end
end
return answer

-- Which version a new run gets while one of its workflow is on trial.
--
-- What is on trial stands in META as lines of four words: workflow, the version that is tried, the
-- version that is kept, and the share of new runs that the first one gets, in ten-thousandths. The
-- script that uses this reads it along with the rest.

local trials

local function trial_of(trials, workflow)
  for name, version, kept, share in string.gmatch(trials or '', '(%S+) (%S+) (%S+) (%d+)') do
    if name == workflow then return version, kept, tonumber(share) end
  end
end

-- A number below 10,000 that is as good as drawn by chance, and always the same for a text: names that
-- are counted up lie as far apart as any. In whole numbers that a double holds exactly.
local function draw(text)
  local hash = 7
  for at = 1, #text do hash = (hash * 65599 + string.byte(text, at)) % 2147483647 end
  for _ = 1, 3 do hash = (hash * 48271) % 2147483647 end
  return math.floor(hash * 10000 / 2147483647)
end

-- The version of a run, and on which side of the trial it stands. The same id is always drawn alike.
local function drawn(trials, workflow, id)
  local version, kept, share = trial_of(trials, workflow)
  if not version then return '', nil end
  if draw(workflow .. ' ' .. version .. ' ' .. id) < share then return version, 'canary' end
  return kept, 'stable'
end

-- Whether a run that nobody has begun was drawn for a trial which was rolled back since: then it is
-- given the version that is kept.
local function recalled(key, trials)
  local workflow, chosen = unpack(redis.call('HMGET', key, 'workflow', 'version'))
  local version, kept, share = trial_of(trials, workflow)
  if not version then
    -- The trial was ended meanwhile: nobody tries anything, and whoever takes the run says which.
    redis.call('HDEL', key, 'version', 'arm')
    return true
  end
  if version ~= chosen or share ~= 0 then return false end
  redis.call('HSET', key, 'version', kept, 'arm', 'stable')
  return true
end

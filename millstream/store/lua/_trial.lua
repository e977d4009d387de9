-- Which version a new run gets while one of its workflow is on trial.
--
-- What is on trial stands in META as lines of four words: workflow, the version that is tried, the
-- version that is kept, and the share of new runs that the first one gets, in ten-thousandths. The
-- script reads it along with the rest, or has `trial_of` do so.

-- A number below 10,000 that is as good as drawn by chance, and always the same for a text: names that
-- are counted up lie as far apart as any. In whole numbers that a double holds exactly.
local function draw(text)
  local hash = 7
  for at = 1, #text do hash = (hash * 65599 + string.byte(text, at)) % 2147483647 end
  for _ = 1, 3 do hash = (hash * 48271) % 2147483647 end
  return math.floor(hash * 10000 / 2147483647)
end

-- The version of a run, and on which side of the trial it stands. The same id is always drawn alike.
local function drawn(workflow, id)
  local version, kept, share = trial_of(workflow)
  if not version then return '', nil end
  if draw(workflow .. ' ' .. version .. ' ' .. id) < share then return version, 'canary' end
  return kept, 'stable'
end

-- Draw again for a run that nobody has begun, where its trial was rolled back or is over; returns on which
-- side it stands. One that stands where it would be put by a draw of its trial stays.
local function reviewed(id, key, arm)
  local workflow, chosen = unpack(redis.call('HMGET', key, 'workflow', 'version'))
  local version, kept, share = trial_of(workflow)
  if arm == 'canary' and chosen == version and share > 0 then return arm end
  if arm == 'stable' and chosen == kept then return arm end
  local anew, side = drawn(workflow, id)
  if side then
    redis.call('HSET', key, 'version', anew, 'arm', side)
  else
    -- Nobody tries anything: whoever takes the run says which version.
    redis.call('HDEL', key, 'version', 'arm')
  end
  return side
end

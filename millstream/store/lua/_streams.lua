-- How a run gets into the streams of a lane, and its entries out of them. The words are those of `_lane`.

-- A run that was in the hands of this many dead workers runs alone, so that a poisonous one
-- cannot take the blameless down with it again.
local SUSPECT_AFTER = 2

-- What many runs need alike is done for all of them in one call, when a script ends: deliveries are
-- acknowledged and deleted together, ends are indexed. Every script that may do either must `flush`.
local spent = {}
local indexed = {}

local function acknowledge(level, entry)
  if not STREAM[level] then return end
  local entries = spent[level]
  if entries then entries[#entries + 1] = entry else spent[level] = {entry} end
end

local function in_parts(values, size, act)
  for first = 1, #values, size do act(unpack(values, first, math.min(first + size - 1, #values))) end
end

-- Every entry before the first pending one has been acknowledged, and none of them means anything
-- any more. Trimming drops whole nodes of the stream; XDEL searches a node for every entry.
local function delete_entries(stream, entries)
  -- A stream that nobody has served has no group; nor has one whose group was lost.
  local found = redis.pcall('XPENDING', stream, GROUP, '-', '+', 1)
  local pending = not found.err and found[1]
  local gone = pending and redis.call('XTRIM', stream, 'MINID', pending[1]) or 0
  -- Nothing else was acknowledged and still there: as many as were acknowledged are these.
  if gone < #entries then in_parts(entries, 500, function(...) redis.call('XDEL', stream, ...) end) end
end

local function index_ends()
  in_parts(indexed, 500, function(...) redis.call('ZADD', ENDED, ...) end)
  indexed = {}
end

local function flush()
  for level, entries in pairs(spent) do
    local stream = STREAM[level]
    in_parts(entries, 500, function(...) redis.call('XACK', stream, GROUP, ...) end)
    delete_entries(stream, entries)
  end
  spent = {}
  index_ends()
end

-- What has to be said in another lane stands here until that lane has heard it.
local posted = 0
local function post(...)
  redis.call('XADD', OUTBOX, '*', ...)
  posted = posted + 1
end

-- Put a run into a stream. Its record names the entry, so that the loss of the entry can be found.
local function deliver(id, key, level, ...)
  local entry = redis.call('XADD', STREAM[level], '*', 'id', id)
  redis.call('HSET', key, 'state', 'queued', 'entry', entry, ...)
end

-- What is on trial, as lines of four words, see `_trial`; read where a run has to do with it.
local trials

local function trial_of(workflow)
  if trials == nil then trials = redis.call('HGET', META, 'trials') end
  for name, version, kept, share in string.gmatch(trials or '', '(%S+) (%S+) (%S+) (%d+)') do
    if name == workflow then return version, kept, tonumber(share) end
  end
end

-- Whether the version of a run is the one that is on trial. Nobody need read the stream of trials for
-- the sake of one that is over.
local function is_tried(key)
  local workflow, version = unpack(redis.call('HMGET', key, 'workflow', 'version'))
  return version and trial_of(workflow) == version
end

-- The level of a run that is put into a stream again. One on trial must be found by those who know its
-- version, also when it is a suspect.
local function level_of(arm, crashes, otherwise, key)
  if arm == 'canary' and is_tried(key) then return arm end
  return tonumber(crashes or '0') >= SUSPECT_AFTER and 'suspect' or otherwise
end

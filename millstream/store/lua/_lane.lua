-- The words every script of a lane speaks: its keys, its clock, and how a run moves.
--
-- Prepended to each script that says so in its header. All keys of a lane carry one hash tag;
-- the fixed ones come in as KEYS, those of single runs are built under the same prefix.

local META, TIMERS, PARKED, LEASES, ENDED, DEAD, AGENTS =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local LEVELS = {'resume', 'high', 'normal', 'low', 'suspect', 'canary'}
local STREAM = {resume = KEYS[8], high = KEYS[9], normal = KEYS[10], low = KEYS[11], suspect = KEYS[12]}
local OUTBOX = KEYS[13]
local PREFIX = string.sub(META, 1, -5)
-- What is on trial is read by those alone who know its version. Hardly a call has to do with it: its
-- name is made here, and not sent with every one.
STREAM.canary = PREFIX .. 'stream:canary'
local GROUP = 'workers'
-- A run that was in the hands of this many dead workers runs alone, so that a poisonous one
-- cannot take the blameless down with it again.
local SUSPECT_AFTER = 2

local function run_key(id) return PREFIX .. 'run:' .. id end
local function journal_key(id) return PREFIX .. 'journal:' .. id end
local function events_key(id) return PREFIX .. 'events:' .. id end
local function received_key(id) return PREFIX .. 'received:' .. id end
local function spilled_key(id) return PREFIX .. 'spilled:' .. id end
local function control_key(token) return PREFIX .. 'control:' .. token end

local function digits(number) return string.format('%.0f', number) end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- The key of a single run may hold something that another program put there. What is asked of such
-- a key is asked with `pcall`, and comes back as nil: nothing is written, and the script goes on with
-- the others. Any other refusal, such as that of a full memory, ends the script.
local function ours(reply)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(tostring(reply.err), 'WRONGTYPE', 1, true) then error(reply) end
  return nil
end

-- Which start of which server this is; empty where it does not say.
local function server_start()
  local info = redis.pcall('INFO', 'server')
  return type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
end

local NOW = now_ms()
local NOW_TEXT = digits(NOW)

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

-- Tell everybody who waits for this run. A hint: whoever misses it reads the state later.
local function wake(id, waiters, state, payload)
  if #payload > 8192 then payload = '' state = 'look' end
  for waiter in string.gmatch(waiters, '%S+') do
    redis.call('PUBLISH', PREFIX .. 'inbox:' .. waiter, id .. '\n' .. state .. '\n' .. payload)
  end
end

local moments = {}

-- The time in so many milliseconds, as text. Most runs that end together are kept equally long.
local function after(ms)
  local moment = moments[ms]
  if not moment then
    moment = digits(NOW + ms)
    moments[ms] = moment
  end
  return moment
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

-- A limit lets so many runs go on at a time. Whoever goes on under it holds one of its permits, and its
-- record says so; whoever finds none left waits, queued but in no stream, until one is handed over.
--
--   permits:<limit>  hash: run id -> the fence it was granted under, 0 while nobody has taken the run
--   limited:<limit>  sorted set: id of a run that waits for a permit -> its place in the line
--   limited          sorted set: all of these
local LIMITED = PREFIX .. 'limited'
local function permits_key(limit) return PREFIX .. 'permits:' .. limit end
local function limited_key(limit) return PREFIX .. 'limited:' .. limit end

-- Hand a permit to the first in line; whether there was one. Each turn takes somebody out of it.
local function grant_next(limit)
  while true do
    local id = (ours(redis.pcall('ZPOPMIN', limited_key(limit))) or {})[1]
    if not id then return false end
    redis.call('ZREM', LIMITED, id)
    local key = run_key(id)
    local state, waits, crashes, arm =
      unpack(ours(redis.pcall('HMGET', key, 'state', 'limit', 'crashes', 'arm')) or {})
    if state == 'queued' and waits == limit then
      redis.call('HSET', permits_key(limit), id, '0')
      redis.call('HDEL', key, 'limit')
      deliver(id, key, level_of(arm, crashes, 'resume', key), 'permits', limit)
      return true
    end
  end
end

-- Give back the permits that a record names, a line each.
local function give_back(id, key, permits)
  redis.call('HDEL', key, 'permits')
  for limit in string.gmatch(permits, '[^\n]+') do
    if ours(redis.pcall('HDEL', permits_key(limit), id)) == 1 then grant_next(limit) end
  end
end

-- What `conclude` has to know of a record before it writes, in this order.
local LOOSE = {'waiters', 'bytes', 'said', 'error', 'received', 'parent', 'permits', 'arm'}

-- How runs of a trial end, of both its versions: by this it is judged. What is counted of a trial that is
-- over would stay for ever.
local function tally(key, state)
  local workflow, version = unpack(redis.call('HMGET', key, 'workflow', 'version'))
  local tried, kept = trial_of(workflow)
  if version and (version == tried or version == kept) then
    redis.call('HINCRBY', PREFIX .. 'tried', workflow .. ' ' .. version .. ' ' .. state, 1)
  end
end

-- Give a run its end. The first write is the one that a full memory refuses: all or nothing.
-- `loose` has what was asked of the record, from `first` on; `...` are further fields of the record.
local function conclude(id, key, state, payload, retention_ms, loose, first, ...)
  redis.call('HSET', key, 'state', state, 'ended', NOW_TEXT,
    state == 'completed' and 'result' or 'error', payload, ...)
  indexed[#indexed + 1] = after(retention_ms)
  indexed[#indexed + 1] = id
  -- The failure of an earlier attempt is not how this run ended.
  if loose[first + 3] and state == 'completed' then redis.call('HDEL', key, 'error') end
  if loose[first + 7] then tally(key, state) end
  -- Last of what touches the record: without a retention it is gone from here on.
  redis.call('PEXPIRE', key, retention_ms)
  local bytes = loose[first + 1]
  if bytes then
    redis.call('PEXPIRE', journal_key(id), retention_ms)
    -- Only what makes a journal of at least five digits can have been spilled.
    if #bytes > 4 then redis.call('PEXPIRE', spilled_key(id), retention_ms) end
  end
  if loose[first + 2] then redis.call('PEXPIRE', events_key(id), retention_ms) end
  if loose[first + 4] then
    if state == 'cancelled' and ours(redis.pcall('HGET', received_key(id), '#open')) then post('kind', 'down', 'run', id) end
    redis.call('PEXPIRE', received_key(id), retention_ms)
  end
  if loose[first + 5] then
    post('kind', 'end', 'to', loose[first + 5], 'id', id, 'state', state, 'payload', payload)
  end
  if loose[first + 6] then give_back(id, key, loose[first + 6]) end
  if loose[first] then wake(id, loose[first], state, payload) end
end

local function finish(id, state, payload, retention_ms)
  local key = run_key(id)
  conclude(id, key, state, payload, retention_ms, redis.call('HMGET', key, unpack(LOOSE)), 1)
end

-- Index a failed run among the dead letters. The oldest leave the index, their records stay.
local function bury(id, dead_max)
  redis.call('ZADD', DEAD, NOW_TEXT, id)
  local over = redis.call('ZCARD', DEAD) - dead_max
  if over > 0 then redis.call('ZREMRANGEBYRANK', DEAD, 0, math.min(over, 100) - 1) end
end

local CANCELLED = '["RunCancelled","the run was cancelled"]'

-- Put a run that has been started before back into a stream, ahead of what is new. Its owner is
-- forgotten first, so that whoever held it can write nothing more.
local function requeue(id, retention_ms)
  local key = run_key(id)
  local cancel, crashes, permits, arm = unpack(redis.call('HMGET', key, 'cancel', 'crashes', 'permits', 'arm'))
  if cancel then
    redis.call('HSET', key, 'owner', '')
    finish(id, 'cancelled', CANCELLED, retention_ms)
    return
  end
  -- Somebody else may go on meanwhile.
  if permits then give_back(id, key, permits) end
  deliver(id, key, level_of(arm, crashes, 'resume', key), 'owner', '')
end

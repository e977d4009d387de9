-- The words every script of a lane speaks: its keys and its clock. How a run moves stands in `_streams`
-- and `_moves`.
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

-- A limit lets so many runs go on at a time. Whoever goes on under it holds one of its permits, and its
-- record says so; whoever finds none left waits, queued but in no stream, until one is handed over.
--
--   permits:<limit>  hash: run id -> the fence it was granted under, 0 while nobody has taken the run
--   limited:<limit>  sorted set: id of a run that waits for a permit -> its place in the line
--   limited          sorted set: all of these
local LIMITED = PREFIX .. 'limited'
local function permits_key(limit) return PREFIX .. 'permits:' .. limit end
local function limited_key(limit) return PREFIX .. 'limited:' .. limit end

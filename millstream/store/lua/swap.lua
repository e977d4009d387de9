-- swap: replace fields of one hash by what is the same, sealed otherwise.
--
-- KEYS hash
--
-- ARGV ...  per field three: its name, what stands, what is to stand
--
-- Returns how many were replaced, or stood so already.
--
-- A field that is gone, or another one by now, is left as it is; so nothing comes back that was taken
-- away, and it is safe to send twice.

local HASH = KEYS[1]
if #ARGV % 3 ~= 0 then error('swap: a field is cut short') end

local done = 0
for at = 1, #ARGV, 3 do
  local field, before, after = unpack(ARGV, at, at + 2)
  local found = redis.call('HGET', HASH, field)
  if found == before then redis.call('HSET', HASH, field, after) end
  if found == before or found == after then done = done + 1 end
end
return done

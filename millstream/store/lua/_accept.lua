-- How a new run is written: scheduled when it is delayed, else queued.

local function accept(id, key, workflow, version, arguments, priority, delay, timeout, tenant, trace, attributes)
  local fields = {'workflow', workflow, 'args', arguments, 'enqueued', NOW_TEXT}
  local function append(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  local arm
  if trials and version == '' then version, arm = drawn(workflow, id) end
  if arm then append('arm', arm) end
  if version ~= '' then append('version', version) end
  if timeout ~= '' then append('timeout', timeout) end
  if tenant ~= '' then append('tenant', tenant) end
  if trace ~= '' then append('trace', trace) end
  if attributes ~= '' then append('attributes', attributes) end
  if priority ~= 'normal' then append('priority', priority) end
  local wait = delay ~= '' and tonumber(delay) or 0
  if wait > 0 then
    redis.call('HSET', key, 'state', 'scheduled', unpack(fields))
    redis.call('ZADD', TIMERS, digits(NOW + wait), id)
  else
    place(id, key, arm == 'canary' and arm or priority, tenant, unpack(fields))
  end
end

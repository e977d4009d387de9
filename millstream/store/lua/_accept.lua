-- How a new run is written: scheduled when it is delayed, else queued.

local function accept(id, key, workflow, version, arguments, priority, delay, timeout, tenant, trace, attributes)
  -- Written out: a function that appends would be made for each run.
  local fields, last, arm = {'workflow', workflow, 'args', arguments, 'enqueued', NOW_TEXT}, 6, nil
  if trials and version == '' then version, arm = drawn(workflow, id) end
  if arm then fields[last + 1], fields[last + 2], last = 'arm', arm, last + 2 end
  if version ~= '' then fields[last + 1], fields[last + 2], last = 'version', version, last + 2 end
  if timeout ~= '' then fields[last + 1], fields[last + 2], last = 'timeout', timeout, last + 2 end
  if tenant ~= '' then fields[last + 1], fields[last + 2], last = 'tenant', tenant, last + 2 end
  if trace ~= '' then fields[last + 1], fields[last + 2], last = 'trace', trace, last + 2 end
  if attributes ~= '' then fields[last + 1], fields[last + 2], last = 'attributes', attributes, last + 2 end
  if priority ~= 'normal' then fields[last + 1], fields[last + 2], last = 'priority', priority, last + 2 end
  local wait = delay ~= '' and tonumber(delay) or 0
  if wait > 0 then
    redis.call('HSET', key, 'state', 'scheduled', unpack(fields))
    redis.call('ZADD', TIMERS, digits(NOW + wait), id)
  else
    place(id, key, arm == 'canary' and arm or priority, tenant, unpack(fields))
  end
end

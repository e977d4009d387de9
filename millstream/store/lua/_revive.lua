-- How a run that has failed or was cancelled is started once more, from where its journal ends.

local function revive(id, key, attempt, priority, drop, tenant)
  attempt = attempt or '1'
  local level = level_of(redis.call('HGET', key, 'arm'), nil, priority or 'normal', key)
  place(id, key, level, tenant or '', 'base', attempt, 'attempt', digits(tonumber(attempt) + 1))
  redis.call('HDEL', key, 'ended', 'error', 'cancel', 'crashes', 'mark', 'refusals', 'ran', 'drop')
  if drop then
    for name in string.gmatch(drop, '[^\n]+') do ours(redis.pcall('HDEL', journal_key(id), name)) end
  end
  for _, kept in ipairs({key, journal_key(id), events_key(id), received_key(id), spilled_key(id)}) do redis.call('PERSIST', kept) end
  redis.call('ZREM', ENDED, id)
  redis.call('ZREM', DEAD, id)
end

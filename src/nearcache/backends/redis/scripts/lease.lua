-- Shared by the scripts about leases; it stands in front of each of them.
-- KEYS: the value, its lease (holds the token of who may store), its waiters (a set of channels).

-- The record of a key, or false: what is no string reads as absent.
local function record(value)
  local held = redis.pcall('GET', value)
  return type(held) == 'string' and held
end

-- What tells a record from every other: its fill id (bytes 2 to 9), or a digest where records have no header.
local function identity(held, enveloped)
  if not held then
    return ''
  end
  return 'i' .. (enveloped == '1' and string.sub(held, 3, 10) or redis.sha1hex(held))
end

-- Tell every process that waits for this lease what came of it. A user who may not publish stores all the same.
local function wake(waiters, outcome, token, value)
  for _, inbox in ipairs(redis.call('SMEMBERS', waiters)) do
    redis.pcall('PUBLISH', inbox, outcome .. ' ' .. token .. ' ' .. value)
  end
  redis.call('DEL', waiters)
end


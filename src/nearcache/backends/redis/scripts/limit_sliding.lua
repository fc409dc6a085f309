-- A sliding limit: no more than its count in any period. The record is a list: the time of each unit, oldest first.
-- Each hit has a time of its own, later than all before, also where the engine's clock went back.
local asked = now
now = math.max(now, tonumber(redis.call('LINDEX', record, -1) or 0) + 1)

-- The time of the last unit but so many; 1 is the last.
local function at(place)
  return tonumber(redis.call('LINDEX', record, -place))
end

-- How many units were consumed within the last period.
local function counted(quota)
  local low, high = 0, math.min(redis.call('LLEN', record), quota.count)
  while low < high do
    local middle = math.ceil((low + high) / 2)
    if at(middle) > now - quota.period then
      low = middle
    else
      high = middle - 1
    end
  end
  return low
end

local function look(units)
  local told = {}
  for _, quota in ipairs(quotas) do
    local used = counted(quota)
    local over = used + units - quota.count
    told[#told + 1] = quota.count - used
    told[#told + 1] = used > 0 and at(1) + quota.period - now or 0
    told[#told + 1] = over > 0 and at(used - over + 1) + quota.period - asked or 0
  end
  return told
end

local function consume()
  local most, longest, units = 0, 0, {}
  for _, quota in ipairs(quotas) do
    most, longest = math.max(most, quota.count), math.max(longest, quota.period)
  end
  for unit = 1, cost do
    units[unit] = text(now)
  end
  redis.call('RPUSH', record, unpack(units))
  redis.call('LTRIM', record, -most, -1) -- older ones count for no limit
  redis.call('PEXPIRE', record, millis(longest))
  return text(now)
end

if verb == 'refund' then
  return redis.call('LREM', record, -cost, receipt)
end
return decide(look, consume)

-- A fixed limit: no more than its count in each window, which begin at multiples of the period since 1970 (UTC).
-- The record is a string, of each limit: when its window began, and how many units were consumed in it.
local stored = numbers(redis.call('GET', record) or '')
local began, used = {}, {}
for at, quota in ipairs(quotas) do
  local start, kept = now - math.fmod(now, quota.period), stored[2 * at - 1] or 0
  began[at] = math.max(start, kept) -- a later window than now's, where the engine's clock went back, goes on
  used[at] = kept >= start and stored[2 * at] or 0
end

local function look(units)
  local told = {}
  for at, quota in ipairs(quotas) do
    local left = began[at] + quota.period - now
    told[#told + 1] = quota.count - used[at]
    told[#told + 1] = used[at] > 0 and left or 0
    told[#told + 1] = used[at] + units > quota.count and left or 0
  end
  return told
end

local function store()
  local line, life = {}, 0
  for at, quota in ipairs(quotas) do
    line[#line + 1] = text(began[at])
    line[#line + 1] = text(used[at])
    life = math.max(life, began[at] + quota.period - now)
  end
  redis.call('SET', record, table.concat(line, ' '), 'PX', millis(life))
end

local function consume()
  local windows = {}
  for at in ipairs(quotas) do
    used[at] = used[at] + cost
    windows[at] = text(began[at])
  end
  store()
  return table.concat(windows, ' ')
end

if verb == 'refund' then
  local windows = numbers(receipt)
  for at in ipairs(quotas) do
    if windows[at] == began[at] then
      used[at] = math.max(0, used[at] - cost)
    end
  end
  store()
  return 1
end
return decide(look, consume)

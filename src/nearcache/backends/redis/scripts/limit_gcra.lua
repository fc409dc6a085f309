-- GCRA: the count at once, and then as they come back, one by one. It is a bucket for each limit, which a unit fills by
-- the period and a microsecond empties by the count, so that all numbers are whole; it holds their product.
-- The record is a string: the time of the last hit, and how full each bucket was after it.
local stored = numbers(redis.call('GET', record) or '')
local last = stored[1] or now
now = math.max(now, last) -- where the engine's clock went back
local levels = {}
for at, quota in ipairs(quotas) do
  levels[at] = math.max(0, (stored[at + 1] or 0) - (now - last) * quota.count)
end

local function look(units)
  local told = {}
  for at, quota in ipairs(quotas) do
    local room = quota.count * quota.period - levels[at]
    told[#told + 1] = math.floor(room / quota.period)
    told[#told + 1] = math.ceil(levels[at] / quota.count)
    told[#told + 1] = math.max(0, math.ceil((units * quota.period - room) / quota.count))
  end
  return told
end

local function store()
  local line, life = {text(now)}, 0
  for at, quota in ipairs(quotas) do
    line[#line + 1] = text(levels[at])
    life = math.max(life, levels[at] / quota.count)
  end
  redis.call('SET', record, table.concat(line, ' '), 'PX', millis(life))
  return table.concat(line, ' ')
end

local function consume()
  for at, quota in ipairs(quotas) do
    levels[at] = levels[at] + cost * quota.period
  end
  return store()
end

if verb == 'refund' then -- what is left of the hit: the bucket emptied what was in it before first
  local then_ = numbers(receipt)
  for at, quota in ipairs(quotas) do
    local left = then_[at + 1] - (now - then_[1]) * quota.count
    levels[at] = math.max(0, levels[at] - math.max(0, math.min(left, cost * quota.period)))
  end
  store()
  return 1
end
return decide(look, consume)

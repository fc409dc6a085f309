-- Shared by the scripts about limits; it stands in front of each of them.
-- All limits of one limiter for one identity are in one record: they are consumed together or not at all.
local record = KEYS[1]
local verb = ARGV[1] -- 'hit', 'peek' or 'refund'
local cost = tonumber(ARGV[2]) -- units
local receipt = ARGV[3] -- for a refund: what the hit returned
local quotas = {} -- of each limit, how many units in how many microseconds
for at = 4, #ARGV, 2 do
  quotas[#quotas + 1] = {count = tonumber(ARGV[at]), period = tonumber(ARGV[at + 1])}
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2]) -- microseconds

local function text(number)
  return string.format('%.0f', number)
end

local function millis(micros)
  return text(math.ceil(micros / 1000) + 1)
end

local function numbers(line)
  local found = {}
  for number in string.gmatch(line, '%d+') do
    found[#found + 1] = tonumber(number)
  end
  return found
end

-- `look(units)` returns for each limit how many units are left, and in how many microseconds it is whole again, and
-- would allow so many units: 0 if it allows them now. `consume()` takes the cost and returns the receipt.
-- Returns {1 if allowed, receipt, and for each limit these three}.
local function decide(look, consume)
  local told, allowed, receipt = look(cost), 1, ''
  for at = 3, #told, 3 do
    if told[at] > 0 then
      allowed = 0
    end
  end
  if allowed == 1 and verb == 'hit' then
    receipt = consume()
    told = look(0)
  end
  return {allowed, receipt, unpack(told)}
end


-- Shared by the scripts about locks; it stands in front of each of them.
-- An owner is one try to get a lock: a random name. Those who wait ask again and again, each time under the same name.
-- A lock may have several holders at a time: as many as the one who wants to join them allows, and those inside do.
local holders = KEYS[1] -- sorted set: the owners that hold the lock, or whose turn it is, by when that ends (microseconds)
local last = KEYS[2] -- string: '<last token> <how many may hold it at a time, as the last who took it said>'
local queue = KEYS[3] -- sorted set: the owners that wait, by arrival (microseconds)
local asked = KEYS[4] -- hash: of each of them '<when it last asked (milliseconds)> <how many at a time> <its channel>'
local owner = ARGV[1]
local fair = ARGV[2] == '1' -- the lock goes to whoever has waited longest
local patience = tonumber(ARGV[3]) -- milliseconds for which somebody counts as waiting who does not ask again
local claim = tonumber(ARGV[4]) -- milliseconds for which the lock is kept for the one whose turn it is

local KEEP = 2592000000 -- milliseconds (30 days) for which the last token is remembered

local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local millis = math.floor(micros / 1000)

local function forget(waiter)
  redis.call('ZREM', queue, waiter)
  redis.call('HDEL', asked, waiter)
end

-- When the first of the leases ends, nil if there is none. Those that have ended are gone.
local function soonest()
  while true do
    local holder = redis.call('ZRANGE', holders, 0, 0, 'WITHSCORES')
    if not holder[1] then
      return nil
    end
    if tonumber(holder[2]) > micros then
      return tonumber(holder[2])
    end
    redis.call('ZREM', holders, holder[1])
  end
end

local function holds(who)
  return soonest() and redis.call('ZSCORE', holders, who)
end

-- The last token, and how many may hold the lock at a time; where that was lost, nobody joins those who hold it.
local function remembered()
  local token, most = string.match(redis.call('GET', last) or '', '^(%d+) (%d+)$')
  return tonumber(token or 0), tonumber(most or 1)
end

-- Whether one who lets so many hold it at a time can join those who do.
local function fits(most)
  if not soonest() then
    return true
  end
  local _, allowed = remembered()
  return redis.call('ZCARD', holders) < math.min(most, allowed)
end

local function seat(who, life, token, most)
  redis.call('ZADD', holders, micros + 1000 * life, who)
  redis.call('PEXPIRE', holders, math.max(life, redis.call('PTTL', holders)))
  redis.call('SET', last, string.format('%.0f %.0f', token, most), 'PX', KEEP)
  forget(who)
end

-- Who waits longest, how many may hold it at a time with them, and the channel on which they hear. Those who have not
-- asked for too long are gone: they died.
local function first()
  while true do
    local waiter = redis.call('ZRANGE', queue, 0, 0)[1]
    if not waiter then
      return nil
    end
    local at, most, channel = string.match(redis.call('HGET', asked, waiter) or '', '^(%d+) (%d+) (.*)$')
    if at and millis - tonumber(at) <= patience then
      return waiter, tonumber(most), channel
    end
    forget(waiter)
  end
end

-- Tell whoever waits longest, if there is room for them. A fair lock is theirs at once, so that nobody can overtake
-- them, and the next one is asked; if they do not come for it, it is free again soon, and they have lost their place.
local function pass_on()
  local waiter, most, channel = first()
  while waiter and fits(most) do
    if fair then
      local token = remembered()
      seat(waiter, claim, token, most)
    end
    if waiter ~= owner and channel ~= '' then -- a user who may not publish passes it on all the same
      redis.pcall('PUBLISH', channel, 'free ' .. waiter .. ' ' .. waiter)
    end
    if not fair then
      return
    end
    waiter, most, channel = first()
  end
end


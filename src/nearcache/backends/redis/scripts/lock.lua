-- Shared by the scripts about locks; it stands in front of each of them.
-- An owner is one try to get a lock: a random name. Those who wait ask again and again, each time under the same name.
local holder = KEYS[1] -- string: the owner that holds the lock, or whose turn it is; it lives as long as the lease
local last = KEYS[2] -- string: the last token
local queue = KEYS[3] -- sorted set: the owners that wait, by arrival (microseconds)
local asked = KEYS[4] -- hash: when each of them last asked, and the channel on which it hears: '<milliseconds> <channel>'
local owner = ARGV[1]
local fair = ARGV[2] == '1' -- the lock goes to whoever has waited longest
local patience = tonumber(ARGV[3]) -- milliseconds for which somebody counts as waiting who does not ask again
local claim = ARGV[4] -- milliseconds for which the lock is kept for the one whose turn it is

local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local millis = math.floor(micros / 1000)

local function forget(waiter)
  redis.call('ZREM', queue, waiter)
  redis.call('HDEL', asked, waiter)
end

-- Who waits longest, and the channel on which they hear. Those who have not asked for too long are gone: they died.
local function first()
  while true do
    local waiter = redis.call('ZRANGE', queue, 0, 0)[1]
    if not waiter then
      return nil
    end
    local at, channel = string.match(redis.call('HGET', asked, waiter) or '', '^(%d+) (.*)$')
    if at and millis - tonumber(at) <= patience then
      return waiter, channel
    end
    forget(waiter)
  end
end

-- Let the lock go, and tell whoever waits longest. A fair one is theirs at once, so that nobody can overtake them; if
-- they do not come for it, it is free again soon, and they have lost their place.
local function pass_on()
  local waiter, channel = first()
  if waiter and fair then
    redis.call('SET', holder, waiter, 'PX', claim)
    forget(waiter)
  else
    redis.call('DEL', holder)
  end
  if waiter and channel ~= '' then -- a user who may not publish passes it on all the same
    redis.pcall('PUBLISH', channel, 'free ' .. waiter .. ' ' .. waiter)
  end
end


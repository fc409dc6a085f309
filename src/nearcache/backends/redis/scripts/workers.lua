-- Counts the processes that use limiters: those that have said lately that they live, this one included.
local living = KEYS[1] -- sorted set: the processes, by when they said so last (microseconds)
local worker = ARGV[1]
local life = tonumber(ARGV[2]) -- milliseconds for which a process counts that says nothing

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

redis.call('ZADD', living, string.format('%.0f', now), worker)
redis.call('PEXPIRE', living, life)
while true do
  local oldest = redis.call('ZRANGE', living, 0, 0, 'WITHSCORES')
  if tonumber(oldest[2]) > now - 1000 * life then
    return redis.call('ZCARD', living)
  end
  redis.call('ZREM', living, oldest[1])
end

-- Let a lock live on. Returns 1 if the owner still holds it, else 0.
local holders = KEYS[1] -- sorted set: the owners that hold the lock, by when that ends (microseconds)
local owner = ARGV[1]
local life = tonumber(ARGV[2]) -- milliseconds

local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])

local ends = redis.call('ZSCORE', holders, owner)
if not ends or tonumber(ends) <= micros then
  return 0
end
redis.call('ZADD', holders, micros + 1000 * life, owner)
redis.call('PEXPIRE', holders, math.max(life, redis.call('PTTL', holders)))
return 1

-- Add a session to those of a user. Safe to repeat.
local sessions = KEYS[1] -- sorted set: names of sessions, by when they end in any case (milliseconds)
local name = ARGV[1]
local left = tonumber(ARGV[2]) -- milliseconds that the session lives at most
local before = ARGV[3] -- the name that the session had before, '' if it had none

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', sessions, string.format('%.0f', now + left), name)
if before ~= '' then
  redis.call('ZREM', sessions, before)
end
for _, ended in ipairs(redis.call('ZREVRANGEBYSCORE', sessions, now, '-inf')) do
  redis.call('ZREM', sessions, ended)
end
if redis.call('PTTL', sessions) < left then
  redis.call('PEXPIRE', sessions, left)
end
return 1

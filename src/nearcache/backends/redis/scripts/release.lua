-- End a lease without storing anything, and tell those who wait for it.
local value, lease, waiters = KEYS[1], KEYS[2], KEYS[3]
local token = ARGV[1]
local outcome = ARGV[2] -- 'retry', or 'fail:' and the type of an error

local holder = redis.call('GET', lease)
if holder == token then
  redis.call('DEL', lease)
end
if not holder or holder == token then
  wake(waiters, outcome, token, value)
end
return 1

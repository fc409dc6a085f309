-- End a lease without storing anything, and tell those who wait for it.
local value, lease, waiters = KEYS[1], KEYS[2], KEYS[3]
local token = ARGV[1]
local outcome = ARGV[2] -- 'retry', or 'fail:' and the type of an error
local pause = tonumber(ARGV[3]) -- milliseconds for which nobody gets the lease, 0 for none
local nobody = ARGV[4] -- who holds the lease during the pause

local holder = redis.call('GET', lease)
if holder == token then
  if pause > 0 then
    redis.call('SET', lease, nobody, 'PX', pause)
  else
    redis.call('DEL', lease)
  end
end
if not holder or holder == token then
  wake(waiters, outcome, token, value)
end
return 1

-- Store what was loaded under a lease, and end the lease. Returns 1 if stored, else 0.
-- Refused where the lease is gone or another's, or where somebody replaced the record (a SET without this library too).
local value, lease, waiters = KEYS[1], KEYS[2], KEYS[3]
local token = ARGV[1]
local seen = ARGV[2] -- identity of the record at the time of the lease, '' if there was none
local life = ARGV[3] -- milliseconds
local fresh = ARGV[4] -- bytes to store
local enveloped = ARGV[5] -- '1' where records have a header

local holder = redis.call('GET', lease)
if holder ~= token then
  if not holder then
    wake(waiters, 'retry', token, value)
  end
  return 0
end
redis.call('DEL', lease)
local held = record(value)
if held and identity(held, enveloped) ~= seen then
  wake(waiters, 'retry', token, value)
  return 0
end
redis.call('SET', value, fresh, 'PX', life)
wake(waiters, 'filled', token, value)
return 1

-- Store what was written to the source under a lease, and end the lease. Returns 1 if stored, else 0.
-- Without its lease, another write or an invalidation came between, and nobody knows which was the last in the source:
-- the record is removed, and the lease of whoever has one, so that the other writer does not store either.
local value, lease, waiters = KEYS[1], KEYS[2], KEYS[3]
local token = ARGV[1]
local life = ARGV[2] -- milliseconds
local fresh = ARGV[3] -- bytes to store

local mine = redis.call('GET', lease) == token
redis.call('DEL', lease)
if mine then
  redis.call('SET', value, fresh, 'PX', life)
else
  redis.call('DEL', value)
end
wake(waiters, mine and 'filled' or 'retry', token, value)
return mine and 1 or 0

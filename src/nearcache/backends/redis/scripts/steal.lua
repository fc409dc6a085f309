-- Take the lease from whoever has it, and return the identity of the present record ('' if there is none).
local value, lease = KEYS[1], KEYS[2]
local token = ARGV[1]
local life = ARGV[2] -- milliseconds
local enveloped = ARGV[3] -- '1' where records have a header

redis.call('SET', lease, token, 'PX', life)
return identity(record(value), enveloped)

-- Let a lease live on. Returns 1 if it is still the caller's, else 0.
local lease = KEYS[1] -- string: who has it
local token = ARGV[1]
local life = ARGV[2] -- milliseconds

if redis.call('GET', lease) ~= token then
  return 0
end
redis.call('PEXPIRE', lease, life)
return 1

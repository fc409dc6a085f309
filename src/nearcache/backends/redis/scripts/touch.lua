-- Give a record a new life if its fill id is still the one the caller judged. Returns 1 if so, else 0.
local value = KEYS[1]
local fill_id = ARGV[1] -- 8 bytes
local life = ARGV[2] -- milliseconds
local ages = ARGV[3] -- soft and hard age of the header, 8 bytes

if redis.pcall('GETRANGE', value, 2, 9) ~= fill_id then -- an absent record answers '', what is no string an error
  return 0
end
redis.call('SETRANGE', value, 24, ages)
redis.call('PEXPIRE', value, life)
return 1

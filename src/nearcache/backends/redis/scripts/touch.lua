-- Give a record a new life if its fill id is still the one the caller judged. Returns 1 if so, else 0.
local value = KEYS[1]
local fill_id = ARGV[1] -- 8 bytes
local life = ARGV[2] -- milliseconds
local ages = ARGV[3] -- soft and hard age of the header, 8 bytes

local found = redis.pcall('GETRANGE', value, 2, 9) -- '' if there is no record
if type(found) == 'table' and not string.find(found.err, 'WRONGTYPE') then
  redis.call('GETRANGE', value, 2, 9) -- the user may not: this raises, and says where
end
if found ~= fill_id then
  return 0
end
redis.call('SETRANGE', value, 24, ages)
redis.call('PEXPIRE', value, life)
return 1

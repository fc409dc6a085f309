-- Store a record only if there is none, or only one whose fill id is `dead`. Returns 1 if stored, else 0.
local value = KEYS[1]
local dead = ARGV[1] -- fill id (8 bytes) of a record that counts as absent
local life = ARGV[2] -- milliseconds
local record = ARGV[3] -- bytes to store

local held = redis.call('GET', value)
if held and string.sub(held, 3, 10) ~= dead then -- bytes 2 to 9: the fill id
  return 0
end
redis.call('SET', value, record, 'PX', life)
return 1

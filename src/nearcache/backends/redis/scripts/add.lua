-- Store a record only if there is none, or only one whose fill id is `dead`; revoke the lease then, so that no load puts
-- back what it read before. Returns 1 if stored, else 0, as where the key holds no string.
local value, lease = KEYS[1], KEYS[2]
local dead = ARGV[1] -- fill id (8 bytes) of a record that counts as absent
local life = ARGV[2] -- milliseconds
local record = ARGV[3] -- bytes to store

local held = redis.pcall('GET', value)
if type(held) == 'table' or (held and (dead == '' or string.sub(held, 3, 10) ~= dead)) then -- bytes 2 to 9: the fill id
  return 0
end
-- In this order: a full engine lets a script store that has changed anything before.
redis.call('SET', value, record, 'PX', life)
redis.call('DEL', lease)
return 1

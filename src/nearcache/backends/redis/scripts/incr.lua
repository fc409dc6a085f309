-- Add to the integer in a record and return the sum as text, exact over 64 bits (a Lua number is not: the server adds).
-- The lease is revoked. No answer (false) means that nothing was changed: there is no integer, or no room for the sum.
local value, lease = KEYS[1], KEYS[2]
local by = ARGV[1] -- decimal integer
local life = ARGV[2] -- milliseconds, for a record that is created
local fresh = ARGV[3] -- header of a new record up to its payload; '' where records have no header
local dead = ARGV[4] -- fill id (8 bytes) of a record that counts as absent; '' for none

local FILL_ID_ENDS = 10 -- 1-based, as everywhere in Lua
local CODEC = 37
local TAGS_SIZE = 46 -- two bytes, big-endian; tags and payload follow

local held = redis.pcall('GET', value)
if type(held) == 'table' then
  return false
end
-- The lease goes after the first SET: a full engine lets a script store that has changed anything before.
if not held or (dead ~= '' and string.sub(held, 3, FILL_ID_ENDS) == dead) then
  redis.call('SET', value, fresh .. by, 'PX', life)
  redis.call('DEL', lease)
  return by
end

local header, payload = '', held
if fresh ~= '' then
  if #held < TAGS_SIZE + 1 or string.byte(held, 1) ~= string.byte(fresh, 1)
    or string.byte(held, CODEC) ~= string.byte(fresh, CODEC) then
    return false
  end
  local high, low = string.byte(held, TAGS_SIZE, TAGS_SIZE + 1)
  local starts = TAGS_SIZE + 2 + high * 256 + low
  header = string.sub(held, 1, 2) .. string.sub(fresh, 3, FILL_ID_ENDS) .. string.sub(held, 11, starts - 1)
  payload = string.sub(held, starts)
end

redis.call('SET', value, payload, 'KEEPTTL')
local added = redis.pcall('INCRBY', value, by)
if type(added) == 'table' and added.err then
  redis.call('SET', value, held, 'KEEPTTL')
  if not string.find(added.err, 'integer') and not string.find(added.err, 'overflow') then
    redis.call('INCRBY', value, by) -- the user may not: this raises, and says where
  end
  return false
end
redis.call('DEL', lease)
local sum = redis.call('GET', value)
redis.call('SET', value, header .. sum, 'KEEPTTL')
return sum

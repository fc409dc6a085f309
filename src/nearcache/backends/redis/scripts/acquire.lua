-- Ask for the lease of a key. Returns {'VALUE', record}, {'LEAD'}, or {'WAIT', milliseconds left, holder's token}.
-- Safe to repeat: the same token leads again.
local value, lease, waiters = KEYS[1], KEYS[2], KEYS[3]
local token = ARGV[1]
local life = ARGV[2] -- milliseconds
local seen = ARGV[3] -- identity of the record that the caller cannot use, '' if there was none
local inbox = ARGV[4] -- channel to tell when the lease ends, '' for none
local enveloped = ARGV[5] -- '1' where records have a header

local held = record(value)
if held and identity(held, enveloped) ~= seen then
  return {'VALUE', held}
end
if redis.call('SET', lease, token, 'NX', 'PX', life) then
  return {'LEAD'}
end
local holder = redis.call('GET', lease)
if holder == token then
  return {'LEAD'}
end
local left = redis.call('PTTL', lease)
if inbox ~= '' then
  redis.call('SADD', waiters, inbox)
  redis.call('PEXPIRE', waiters, math.max(2 * life, left + 1000))
end
return {'WAIT', left, holder}

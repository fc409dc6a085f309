-- Ask for a lock. Returns {'HELD', token}, or {'WAIT', milliseconds until whoever holds it has to renew it}.
-- The token is larger than every token before: also where the record of the last one was lost, for it is at least the
-- time in microseconds. Safe to repeat: the same owner gets the lock again, with a newer token.
local life = ARGV[5] -- milliseconds
local waits = ARGV[6] == '1' -- the owner will ask again
local channel = ARGV[7] -- to tell when it is the owner's turn, '' for none

local KEEP = 2592000000 -- milliseconds (30 days) for which the last token is remembered

local held = redis.call('GET', holder)
if not held and fair then
  local head = first()
  if head and head ~= owner then
    pass_on()
    held = head
  end
end
if not held or held == owner then
  local token = string.format('%.0f', math.max(tonumber(redis.call('GET', last) or 0), micros) + 1)
  redis.call('SET', holder, owner, 'PX', life)
  redis.call('SET', last, token, 'PX', KEEP)
  forget(owner)
  return {'HELD', token}
end
if waits then
  redis.call('ZADD', queue, 'NX', micros, owner)
  redis.call('HSET', asked, owner, string.format('%.0f %s', millis, channel))
  redis.call('PEXPIRE', queue, 2 * patience)
  redis.call('PEXPIRE', asked, 2 * patience)
end
return {'WAIT', redis.call('PTTL', holder)}

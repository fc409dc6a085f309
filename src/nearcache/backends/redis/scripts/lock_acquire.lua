-- Ask for a lock. Returns {'HELD', token}, or {'WAIT', milliseconds until one of those who hold it has to renew it}.
-- The token is larger than every token before: also where the record of the last one was lost, for it is at least the
-- time in microseconds. Safe to repeat: the same owner gets the lock again, with a newer token.
local life = tonumber(ARGV[5]) -- milliseconds
local waits = ARGV[6] == '1' -- the owner will ask again
local channel = ARGV[7] -- to tell when it is the owner's turn, '' for none
local most = tonumber(ARGV[8]) -- how many may hold it at a time

if fair and not holds(owner) then
  pass_on()
end
if holds(owner) or (fits(most) and not (fair and first())) then
  local token = math.max(remembered(), micros) + 1
  seat(owner, life, token, most)
  if most > 1 then -- who was told may have come too late for one place, and there is another
    pass_on()
  end
  return {'HELD', string.format('%.0f', token)}
end
if waits then
  redis.call('ZADD', queue, 'NX', micros, owner)
  redis.call('HSET', asked, owner, string.format('%.0f %.0f %s', millis, most, channel))
  redis.call('PEXPIRE', queue, 2 * patience)
  redis.call('PEXPIRE', asked, 2 * patience)
end
return {'WAIT', math.ceil((soonest() - micros) / 1000)}

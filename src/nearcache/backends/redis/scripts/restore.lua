-- Give marks back to a record that may have lost them, or begin one where there is none. What is given back gets a new
-- stamp: those who know newer marks only ask for newer ones, and would never hear of it. Returns 1 if the record was
-- behind the caller, so that it may also hold marks that the caller does not know and will not ask for.
-- Marks are lost in the order of their stamps, newest first: a replica that takes over, or a snapshot, has all of them
-- up to some moment.
local meta = KEYS[1] -- sorted set: 't:' and a tag, '~clear', '~purge'; scored by stamp
local known = tonumber(ARGV[1]) -- newest stamp the caller has seen
local complete = tonumber(ARGV[2]) -- the caller knows every mark from this stamp on
local life = ARGV[3] -- milliseconds
-- ARGV[4...]: stamps and members in turn, of every mark the caller knows

local newest = redis.call('ZREVRANGE', meta, 0, 0, 'WITHSCORES')
local top = newest[2] and tonumber(newest[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local stamp = string.format('%.0f', math.max(top or 0, known, now) + 1)
if not top or top < complete then -- some are lost that the caller does not know: whatever is older counts as invalid
  redis.call('UNLINK', meta)
  redis.call('ZADD', meta, stamp, '~clear')
end
local function score(member)
  return tonumber(redis.call('ZSCORE', meta, member) or 0)
end
for i = 4, #ARGV, 2 do
  local mark, member = tonumber(ARGV[i]), ARGV[i + 1]
  if mark > math.max(score(member), score('~clear'), score('~purge')) then
    redis.call('ZADD', meta, stamp, member)
  end
end
redis.call('PEXPIRE', meta, life)
return (top or 0) < known and 1 or 0

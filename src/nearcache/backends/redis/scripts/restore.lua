-- Give marks back to a record that may have lost them, or begin one where there is none. Marks are lost in the order of
-- their stamps, newest first: a replica that takes over, or a snapshot, has all of them up to some moment.
local meta = KEYS[1] -- sorted set: 't:' and a tag, '~clear', '~purge'; scored by stamp
local known = tonumber(ARGV[1]) -- newest stamp the caller has seen
local complete = tonumber(ARGV[2]) -- the caller knows every mark from this stamp on
local life = ARGV[3] -- milliseconds
-- ARGV[4...]: stamps and members in turn, of every mark the caller knows

local newest = redis.call('ZREVRANGE', meta, 0, 0, 'WITHSCORES')
local top = newest[2] and tonumber(newest[2])
if not top or top < complete then -- some are lost that the caller does not know: whatever is older counts as invalid
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
  redis.call('UNLINK', meta)
  redis.call('ZADD', meta, string.format('%.0f', math.max(known, now) + 1), '~clear')
end
for i = 4, #ARGV, 2 do
  redis.call('ZADD', meta, 'GT', ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', meta, life)

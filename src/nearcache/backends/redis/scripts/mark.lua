-- Mark tags, or everything, as invalidated now, and return the stamp. Stamps only grow: above the newest in the record,
-- above what the caller has seen, and above the time in microseconds, so that they grow across a fail-over too.
local meta = KEYS[1] -- sorted set: 't:' and a tag, '~clear', '~purge'; scored by stamp
local known = tonumber(ARGV[1]) -- newest stamp the caller has seen
local complete = tonumber(ARGV[2]) -- the caller knows every mark from this stamp on
local life = ARGV[3] -- milliseconds
local keep = tonumber(ARGV[4]) -- tags to keep at most
-- ARGV[5...]: members to mark

local newest = redis.call('ZREVRANGE', meta, 0, 0, 'WITHSCORES')
local top = newest[2] and tonumber(newest[2])
if top and complete <= top and top < known then
  return 0 -- nothing is marked: marks were lost that the caller knows, and restores first
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local number = math.max(top or 0, known, now) + 1
local stamp = string.format('%.0f', number)

local everything = not top or top < known -- marks were lost, or never made: whatever is older counts as invalid
for i = 5, #ARGV do
  everything = everything or ARGV[i] == '~clear'
end
if everything then
  redis.call('UNLINK', meta)
  redis.call('ZADD', meta, stamp, '~clear')
end
for i = 5, #ARGV do
  redis.call('ZADD', meta, stamp, ARGV[i])
end

local surplus = redis.call('ZCARD', meta) - keep
if surplus > 0 then
  local purge = tonumber(redis.call('ZSCORE', meta, '~purge') or 0)
  local clear = redis.call('ZSCORE', meta, '~clear')
  local popped = redis.call('ZPOPMIN', meta, surplus)
  purge = math.max(purge, tonumber(popped[#popped]))
  redis.call('ZADD', meta, clear, '~clear', string.format('%.0f', purge), '~purge')
end
redis.call('PEXPIRE', meta, life)
return stamp

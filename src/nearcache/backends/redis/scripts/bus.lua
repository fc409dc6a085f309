-- Announce a change that has just been made: append an entry to the stream of changes, and return its id.
-- The entry names the one before it, so that whoever reads on sees when entries were trimmed or lost in between.
-- Safe to repeat: a second entry makes readers forget once more what they have forgotten.
-- All of it is one text, '<origin> <entry before> <key> <key> ...': each part of its own would cost the engine time for
-- every reader.
local stream = KEYS[1]
local origin = ARGV[1] -- name of the process that made the change, hexadecimal
local keys = ARGV[2] -- what was changed, with a space between; an empty word stands for marks

local KEEP = 100000 -- entries, roughly
local LIFE = 2592000000 -- milliseconds (30 days) until the stream is dropped that nobody appends to

local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local before = newest and newest[1] or '0-0'
local id = '*'
if not newest and redis.call('EXISTS', stream) == 0 then
  -- The ids of a stream that was deleted within this millisecond must not come again, or nobody would notice.
  local time = redis.call('TIME')
  local micros = tonumber(time[2])
  local unique = micros * 2^32 + tonumber(string.sub(origin, 1, 8), 16)
  id = string.format('%s%03d-%.0f', time[1], math.floor(micros / 1000), unique)
end
id = redis.call('XADD', stream, 'MAXLEN', '~', KEEP, id, 'c', origin .. ' ' .. before .. ' ' .. keys)
redis.call('PEXPIRE', stream, LIFE)
return id

-- Announce a change that has just been made: append an entry to the stream of changes, and return its id.
-- The entry names the one before it, so that whoever reads on sees when entries were trimmed or lost in between.
-- Safe to repeat: a second entry makes readers forget once more what they have forgotten.
-- All of it is one text, '<origin> <entry before> <key> <key> ...': each part of its own would cost the engine time for
-- every reader.
local stream = KEYS[1]
local origin = ARGV[1] -- name of the process that made the change
local keys = ARGV[2] -- what was changed, with a space between; an empty word stands for marks

local KEEP = 100000 -- entries, roughly
local LIFE = 2592000000 -- milliseconds (30 days) until the stream is dropped that nobody appends to

local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
local before = newest and newest[1] or '0-0'
local id = redis.call('XADD', stream, 'MAXLEN', '~', KEEP, '*', 'c', origin .. ' ' .. before .. ' ' .. keys)
redis.call('PEXPIRE', stream, LIFE)
return id

-- Change some fields of a session that is there, and leave the others as they are. Returns 0 if it is not there: what
-- was destroyed does not come back. Returns -1 if it would be too large; then nothing is changed.
-- A session that moves to another name is changed for the last time, and returned; nobody else finds it from then on.
local most = tonumber(ARGV[1]) -- bytes that names and values have together at most
local to = ARGV[2] -- the name to which it moves, '' if it stays
local changed = tonumber(ARGV[3]) -- how many fields get a value
local first_gone = 4 + 2 * changed
-- ARGV[4...]: names and values of these fields in turn, then names of fields that it has no more

local MOVES = 60000 -- milliseconds after which a session that moves is lost, if whoever moves it died

if not is_there(to) then
  return 0
end
for i = 4, first_gone - 1, 2 do
  held[':' .. ARGV[i]] = ARGV[i + 1]
end
for i = first_gone, #ARGV do
  held[':' .. ARGV[i]] = nil
end
local size = 0
for name, value in pairs(held) do
  if string.sub(name, 1, 1) == ':' then
    size = size + #name - 1 + #value
  end
end
if size > most then
  return -1
end
for i = 4, first_gone - 1, 2 do
  redis.call('HSET', session, ':' .. ARGV[i], ARGV[i + 1])
end
for i = first_gone, #ARGV do
  redis.call('HDEL', session, ':' .. ARGV[i])
end
if to == '' then
  renew()
  return 1
end
redis.call('HSET', session, 'moved', to)
redis.call('PEXPIRE', session, MOVES)
return record()

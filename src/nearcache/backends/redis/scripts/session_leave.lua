-- Remove a session that has moved. Returns 1 if it was still there, 0 if somebody destroyed it meanwhile.
local session = KEYS[1]
local to = ARGV[1] -- the name to which it moved

if redis.call('HGET', session, 'moved') ~= to then
  return 0
end
redis.call('DEL', session)
return 1

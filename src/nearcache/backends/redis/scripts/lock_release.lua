-- Give a lock back, or wait for it no longer. Returns 1 if the owner held it, else 0: then another's is left alone.
forget(owner)
local held = redis.call('GET', holder)
if held and held ~= owner then
  return 0
end
pass_on() -- also if nobody holds it: the owner may be the one who was told that it is free
return held and 1 or 0

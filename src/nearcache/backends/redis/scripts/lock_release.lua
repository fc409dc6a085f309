-- Give a lock back, or wait for it no longer. Returns 1 if the owner held it, else 0: then another's is left alone.
forget(owner)
local held = holds(owner)
redis.call('ZREM', holders, owner)
pass_on() -- also if it did not hold it: the owner may be the one who was told that it is free, or stood in the way
return held and 1 or 0

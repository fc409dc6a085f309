-- Begin a session, under a name that nobody has had. Safe to repeat.
idle, left = tonumber(ARGV[1]), tonumber(ARGV[2]) -- milliseconds that it lives unused, and at most
-- ARGV[3...]: names and values of fields in turn

redis.call('HSET', session, 'idle', ARGV[1], 'end', string.format('%.0f', now + left))
for i = 3, #ARGV, 2 do
  redis.call('HSET', session, ':' .. ARGV[i], ARGV[i + 1])
end
renew()
return 1

-- Shared by the scripts about sessions; it stands in front of each of them.
local session = KEYS[1] -- hash: ':' and a field's name → its value; 'idle': milliseconds that the session lives unused;
-- 'end': when it ends in any case, milliseconds of this engine's time; 'moved': the name that it is about to get

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local held = {} -- the hash as a table
local idle, left -- milliseconds, nil where there is no session

local function number(text)
  return text and #text <= 15 and tonumber(string.match(text, '^%d+$'))
end

-- Read the session, and tell whether it is there: a record of somebody else's is none, nor is one that moves elsewhere.
local function is_there(to)
  local flat = redis.pcall('HGETALL', session)
  if flat.err and not string.find(flat.err, 'WRONGTYPE') then
    redis.call('HGETALL', session) -- the user may not: this raises, and says where
  end
  for i = 1, #flat, 2 do
    held[flat[i]] = flat[i + 1]
  end
  idle, left = number(held['idle']), number(held['end'])
  if not idle or idle < 1 or not left or left <= now or (held['moved'] and held['moved'] ~= to) then
    return false
  end
  left = left - now
  return true
end

-- Let the session live on from now.
local function renew()
  redis.call('PEXPIRE', session, math.min(idle, left))
end

-- The session as the answer of a script: how long it lives unused, and at most, then the fields by name and value.
local function record()
  local answer = {idle, left}
  for name, value in pairs(held) do
    if string.sub(name, 1, 1) == ':' then
      answer[#answer + 1] = string.sub(name, 2)
      answer[#answer + 1] = value
    end
  end
  return answer
end


-- Return a session, or false if there is none.
local used = ARGV[1] == '1' -- the session is used, and lives on

if not is_there() then
  return false
end
if used then
  renew()
end
return record()

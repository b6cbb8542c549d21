-- Take a lease if it is free or the owner's already; the counter stays when it ends, so that tokens only grow.
-- The first write is a removal, which a server without memory allows: what gives memory back is done under a lease.
-- KEYS: lease, counter. ARGV: owner, ttl in ms.
local held = redis.call('GET', KEYS[1])
if held then
  local token, owner = string.match(held, '^(%d+) (.*)$')
  if owner ~= ARGV[1] then return false end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return token
end
redis.call('DEL', KEYS[1])
local token = string.format('%d', redis.call('INCR', KEYS[2]))
redis.call('SET', KEYS[1], token .. ' ' .. ARGV[1], 'PX', ARGV[2])
return token

-- Take a request for a poll back if nobody has begun it. KEYS: the roster's base. ARGV: name, id.
local orders = KEYS[1] .. ':orders'
if redis.call('HGET', orders, ARGV[1]) ~= ARGV[2] then return 0 end
return redis.call('HDEL', orders, ARGV[1])
